#include "cuda/select.h"

#include <cmath>

#include "cuda/rows.h"

namespace fg::cuda {

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
  const int bytes = args.is_double ? 8 : 4;
  Job job{};
  job.select = {args.new_log_weights, args.is_double, args.groups, 1,
                args.items,           args.items,     args.rule,   true,
                args.random,          args.ancestors, nullptr,     args.ess,
                args.status,          args.workspace};
  job.ess_threshold = args.ess_threshold;
  job.resampled = args.resampled;
  job.reweight = args;
  job.values = {args.values, args.new_values, bytes};
  job.running = {args.running, args.new_running, args.running != nullptr ? args.running_bytes : 0};
  run_rows(job, stream);
}

} // namespace fg::cuda
