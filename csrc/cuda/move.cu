// A check of the ancestors, then one launch for up to kMost tensors, which writes nothing once the status is
// lowered. A block copies kStretch vectors of one tensor; the ancestor of a row is read by the threads of the
// row from the first-level cache.
#include "cuda/move.h"

#include "cuda/copy.h"
#include "cuda/report.h"

namespace fg::cuda {
namespace {

constexpr int kThreads = 256;
constexpr std::int64_t kStretch = kThreads * kCopies;
constexpr int kMost = 32;

struct Tensors {
  Moving each[kMost];
  std::int64_t first_blocks[kMost]; // of each one's blocks
  int count;
};

template <typename Index> struct Plan {
  const Index* ancestors;
  std::int64_t groups, rows, draws;
  bool in_place;
  std::int64_t* status;
};

template <typename Index>
__global__ void __launch_bounds__(kThreads) check_ancestors(const Plan<Index> plan) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= plan.groups * plan.draws)
    return;
  const std::int64_t group = row / plan.draws, ancestor = static_cast<std::int64_t>(plan.ancestors[row]);
  if (ancestor < 0 || ancestor >= plan.rows)
    report(plan.status, kOutOfRange, row);
  else if (plan.in_place && plan.ancestors[group * plan.draws + ancestor] != ancestor)
    report(plan.status, kInvalidValue, row);
}

template <typename Index>
__global__ void __launch_bounds__(kThreads) gather(const Tensors tensors, const Plan<Index> plan) {
  constexpr std::int64_t kNever = INT64_MAX;
  if (plan.status[kOutOfRange] != kNever || plan.status[kInvalidValue] != kNever)
    return;
  int t = 0;
  while (t + 1 < tensors.count && tensors.first_blocks[t + 1] <= blockIdx.x)
    ++t;
  const std::int64_t all = plan.groups * plan.draws;
  const auto way_of = [&](std::int64_t row) -> Way {
    if (row >= all)
      return {0, -1};
    const std::int64_t group = plan.groups == 1 ? 0 : row / plan.draws;
    const std::int64_t ancestor = static_cast<std::int64_t>(plan.ancestors[row]);
    const bool stays = plan.in_place && ancestor == row - group * plan.draws;
    return {group * plan.rows + ancestor, stays ? -1 : row};
  };
  copy_stretch<kThreads>(tensors.each[t], (blockIdx.x - tensors.first_blocks[t]) * kStretch, way_of);
}

template <typename Index> void run(const MoveArgs& a, StreamHandle stream) {
  const Plan<Index> plan{
      static_cast<const Index*>(a.ancestors), a.groups, a.rows, a.draws, a.in_place, a.status};
  const std::int64_t all = a.groups * a.draws;
  launch(check_ancestors<Index>, (all + kThreads - 1) / kThreads, kThreads, stream, plan);
  for (std::int64_t first = 0; first < a.tensors; first += kMost) {
    Tensors tensors{};
    std::int64_t blocks = 0;
    for (std::int64_t t = first; t < a.tensors && t < first + kMost; ++t) {
      if (a.row_bytes[t] == 0)
        continue;
      const Moving moving = make_moving(a.sources[t], a.targets[t], a.row_bytes[t]);
      tensors.each[tensors.count] = moving;
      tensors.first_blocks[tensors.count++] = blocks;
      blocks += (all * moving.vectors + kStretch - 1) / kStretch;
    }
    launch(gather<Index>, blocks, kThreads, stream, tensors, plan);
  }
}

} // namespace

void move(const MoveArgs& args, StreamHandle stream) {
  if (args.wide_ancestors)
    run<std::int64_t>(args, stream);
  else
    run<std::int32_t>(args, stream);
}

} // namespace fg::cuda
