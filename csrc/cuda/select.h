// select and reweight_select on a GPU; contracts in fastguide/ops, specification in fastguide/reference.
//
// Launchers neither allocate nor wait nor read from the device.
#pragma once

#include <cstdint>

#include "core/selection.h"
#include "cuda/status.h"
#include "cuda/stream.h"

namespace fg::cuda {

// The seed of a group and the step, read from the device where they stand there: a captured graph then draws
// anew each time it is replayed.
struct Randomness {
  const std::int64_t* seeds; // [groups], or null: `seed`, expanded per group
  std::uint64_t seed;
  const std::int64_t* step_at; // or null: `step`
  std::int64_t step;
};

struct SelectArgs {
  const void* log_weights; // [rows, items], float or double; `parents` rows a group
  bool is_double;
  std::int64_t rows, parents, items, draws;
  Rule rule;  // systematic, stratified or argmax, or any unbiased one where draws == 1
  bool slots; // survivors stay in their slots; needs draws == items
  Randomness random;
  std::int32_t* ancestors; // [rows, draws]
  double* log_mean_weight; // [rows]
  double* ess;             // [rows]
  std::int64_t* status;
  void* workspace; // select_bytes() of them, 256-byte aligned
};

struct ReweightSelectArgs {
  const void* log_weights;     // [groups, items], float or double
  const void* values;          // the same
  const void* previous_values; // the same
  const void* log_ratio;       // the same, or null
  const void* running;         // [groups, items] of running_bytes, or null
  int running_bytes;           // 4 or 8
  bool is_double;
  std::int64_t groups, items;
  const double *betas, *previous_betas; // [groups], or null for one of all groups
  double beta, previous_beta;
  Rule rule; // as above
  double ess_threshold;
  Randomness random;
  void *new_log_weights, *new_values, *new_running;
  std::int32_t* ancestors;
  bool* resampled;         // [groups]
  double* log_z_increment; // [groups]
  double* ess;             // [groups]
  std::int64_t* status;
  void* workspace;
  // States [groups * items, row_bytes] that move in place with the particles, up to kMostStates of them.
  void* const* states;           // the arrays of addresses and
  const std::int64_t* row_bytes; // sizes are in the host's memory
  int state_count;
};

constexpr int kMostStates = 8;

std::int64_t select_bytes(std::int64_t rows, std::int64_t items, std::int64_t draws, bool slots);
void select(const SelectArgs& args, StreamHandle stream);
void reweight_select(const ReweightSelectArgs& args, StreamHandle stream);

} // namespace fg::cuda
