// A check of the ancestors, then one launch for up to kMost tensors, which writes nothing once the status is
// lowered. A block copies kStretch vectors of one tensor, as wide as its rows and
// addresses allow, four of a thread in flight: a row of 16 bytes and more is read and written once, in whole
// sectors, and its ancestor is read by the threads of the row from the first-level cache.
#include "cuda/move.h"

#include <cstdint>
#include <stdexcept>

#include "cuda/device.h"
#include "cuda/report.h"

namespace fg::cuda {
namespace {

constexpr int kThreads = 256, kCopies = 4;
constexpr std::int64_t kStretch = kThreads * kCopies;
constexpr int kMost = 32;

struct alignas(16) Bytes16 {
  std::uint64_t words[2];
};

struct Tensor {
  const char* source;
  char* target;
  std::int64_t vectors;                     // of a row
  std::int64_t first_block;                 // of this tensor's blocks
  std::int64_t stride_rows, stride_vectors; // kThreads vectors on
  int width;                                // bytes of a vector
};

struct Tensors {
  Tensor each[kMost];
  int count;
};

template <typename Index> struct Plan {
  const Index* ancestors;
  std::int64_t groups, rows, draws;
  bool in_place;
  std::int64_t* status;
};

template <typename Vector, typename Index>
__device__ void copy(const Tensor& tensor, const Plan<Index>& plan, std::int64_t block) {
  const std::int64_t all = plan.groups * plan.draws;
  const std::int64_t first = block * kStretch;
  const std::int64_t offset = first % tensor.vectors + threadIdx.x;
  std::int64_t row = first / tensor.vectors, column = offset;
  if (offset >= tensor.vectors) {
    const unsigned skipped =
        tensor.vectors > kThreads ? 1 : static_cast<unsigned>(offset) / static_cast<unsigned>(tensor.vectors);
    row += skipped;
    column = offset - skipped * tensor.vectors;
  }
  Vector moved[kCopies];
  std::int64_t to[kCopies];
  FG_UNROLL
  for (int i = 0; i < kCopies; ++i) {
    to[i] = -1;
    if (row < all) {
      const std::int64_t own = plan.groups == 1 ? 0 : row / plan.draws;
      const std::int64_t slot = row - own * plan.draws;
      const std::int64_t ancestor = static_cast<std::int64_t>(plan.ancestors[row]);
      if (!plan.in_place || ancestor != slot) {
        to[i] = row * tensor.vectors + column;
        moved[i] = reinterpret_cast<const Vector*>(
            tensor.source)[(own * plan.rows + ancestor) * tensor.vectors + column];
      }
    }
    row += tensor.stride_rows;
    column += tensor.stride_vectors;
    if (column >= tensor.vectors) {
      column -= tensor.vectors;
      ++row;
    }
  }
  FG_UNROLL
  for (int i = 0; i < kCopies; ++i) {
    if (to[i] >= 0)
      reinterpret_cast<Vector*>(tensor.target)[to[i]] = moved[i];
  }
}

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
  while (t + 1 < tensors.count && tensors.each[t + 1].first_block <= blockIdx.x)
    ++t;
  const Tensor tensor = tensors.each[t];
  const std::int64_t block = blockIdx.x - tensor.first_block;
  switch (tensor.width) {
  case 16:
    return copy<Bytes16>(tensor, plan, block);
  case 8:
    return copy<std::uint64_t>(tensor, plan, block);
  case 4:
    return copy<std::uint32_t>(tensor, plan, block);
  case 2:
    return copy<std::uint16_t>(tensor, plan, block);
  default:
    return copy<std::uint8_t>(tensor, plan, block);
  }
}

int width_of(const void* source, const void* target, std::int64_t row_bytes) {
  const auto bits = reinterpret_cast<std::uintptr_t>(source) | reinterpret_cast<std::uintptr_t>(target) |
                    static_cast<std::uintptr_t>(row_bytes) | 16u;
  return static_cast<int>(bits & -bits);
}

template <typename Index> void run(const MoveArgs& a, StreamHandle stream) {
  const Plan<Index> plan{
      static_cast<const Index*>(a.ancestors), a.groups, a.rows, a.draws, a.in_place, a.status};
  launch(check_ancestors<Index>, (a.groups * a.draws + kThreads - 1) / kThreads, kThreads, stream, plan);
  for (std::int64_t first = 0; first < a.tensors; first += kMost) {
    Tensors tensors{};
    std::int64_t blocks = 0;
    for (std::int64_t t = first; t < a.tensors && t < first + kMost; ++t) {
      if (a.row_bytes[t] == 0)
        continue;
      const int width = width_of(a.sources[t], a.targets[t], a.row_bytes[t]);
      const std::int64_t vectors = a.row_bytes[t] / width;
      tensors.each[tensors.count++] = {static_cast<const char*>(a.sources[t]),
                                       static_cast<char*>(a.targets[t]),
                                       vectors,
                                       blocks,
                                       kThreads / vectors,
                                       kThreads % vectors,
                                       width};
      blocks += (a.groups * a.draws * vectors + kStretch - 1) / kStretch;
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
