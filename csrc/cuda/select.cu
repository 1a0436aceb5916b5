#include "cuda/select.h"

#include <cmath>

#include "cuda/move.h"
#include "cuda/rows.h"

namespace fg::cuda {
namespace {

constexpr std::int64_t kManyTiles = 256;      // two for each multiprocessor
constexpr std::int64_t kFewBytes = 64 * 1024; // what one block of threads moves in about two microseconds

} // namespace

std::int64_t select_bytes(std::int64_t rows, std::int64_t items, std::int64_t draws, bool slots) {
  return rows_bytes(rows, items, draws, slots);
}

void select(const SelectArgs& args, StreamHandle stream) {
  Job job{};
  job.select = args;
  job.select.slots =
      args.slots && args.rule != Rule::argmax; // which draws one item: both orders are the same
  job.ess_threshold = INFINITY;
  run_rows(job, stream);
}

void reweight_select(const ReweightSelectArgs& args, StreamHandle stream) {
  const int width = args.is_double ? 8 : 4;
  Job job{};
  job.select = {args.new_log_weights, args.is_double, args.groups, 1,
                args.items,           args.items,     args.rule,   true,
                args.random,          args.ancestors, nullptr,     args.ess,
                args.status,          args.workspace};
  job.ess_threshold = args.ess_threshold;
  job.resampled = args.resampled;
  job.reweight = args;
  job.values = {args.values, args.new_values, width};
  job.running = {args.running, args.new_running, args.running != nullptr ? args.running_bytes : 0};
  std::int64_t bytes = 0;
  for (int t = 0; t < args.state_count; ++t)
    bytes += args.row_bytes[t];
  // One block of threads moves a tile of rows: where these are few and wide, a launch that fills the device
  // is quicker than the one it costs.
  const std::int64_t tiles = args.groups * ((args.items + kBlock - 1) / kBlock);
  const std::int64_t tile_bytes = (args.items < kBlock ? args.items : kBlock) * bytes;
  const bool along = tiles >= kManyTiles || tile_bytes <= kFewBytes;
  for (int t = 0; along && t < args.state_count; ++t) {
    if (args.row_bytes[t] > 0)
      job.states[job.state_count++] = make_moving(args.states[t], args.states[t], args.row_bytes[t]);
  }
  run_rows(job, stream);
  if (!along)
    move({args.states, args.states, args.row_bytes, args.state_count, args.ancestors, false, args.groups,
          args.items, args.items, true, args.status},
         stream);
}

} // namespace fg::cuda
