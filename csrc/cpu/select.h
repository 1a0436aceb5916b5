// select and reweight_select; contracts in fastguide/ops, specification in fastguide/reference.
#pragma once

#include <cstdint>

#include "core/selection.h"
#include "cpu/evaluate.h"
#include "cpu/status.h"

namespace fg {

// Seeds of the groups of a call: one a group, or one integer to expand.
struct Seeds {
  const std::int64_t* each; // [groups], or null
  std::uint64_t one;
};

// Status: invalid_value with the first refused log-weight; degenerate with the first row that has too few
// items of nonzero weight, everything having been computed.
struct SelectArgs {
  const void* log_weights; // [groups, parents, items], float or double
  bool is_double;
  std::int64_t groups, parents, items, draws;
  Rule rule;
  bool slots; // survivors stay in their slots; needs draws == items
  Seeds seeds;
  std::int64_t step;
  std::int32_t* ancestors; // [groups, parents, draws]
  double* log_mean_weight; // [groups, parents]
  double* ess;             // [groups, parents]
  int threads;
};

// Status: invalid_value with the first particle whose inputs are refused or whose log-weight would be;
// degenerate as above. A value that cannot be computed counts as a NaN.
struct ReweightSelectArgs {
  const void* log_weights;     // [groups, items], float or double
  void* values;                // the same; written first where `value` is given
  const void* previous_values; // the same
  const void* log_ratio;       // the same, or null
  const void* running;         // [groups, items] of running_bytes, or null
  int running_bytes;           // 4 or 8
  bool is_double;
  std::int64_t groups, items;
  const double *betas, *previous_betas; // [groups], or null for one of all groups
  double beta, previous_beta;
  Rule rule;
  double ess_threshold;
  Seeds seeds;
  std::int64_t step;
  void *new_log_weights, *new_values, *new_running;
  std::int32_t* ancestors;
  bool* resampled;           // [groups]
  double* log_z_increment;   // [groups]
  double* ess;               // [groups]
  const EvaluateArgs* value; // of groups * items states, or null; its `out` and `threads` are not read
  int threads;
};

#define FG_SELECT_KERNELS(X) X(select, SelectArgs) X(reweight_select, ReweightSelectArgs)

} // namespace fg
