// gaussian_log_ratio and masked_log_ratio: what a guided proposal costs in weight, log p - log q of its
// children.
#pragma once

#include <cstdint>

#include "cpu/gaussian_step.h"
#include "cpu/masked.h"
#include "cpu/status.h"

namespace fg {

struct GaussianLogRatioArgs {
  const float* children; // [particles, branch, size]
  FloatRows x;           // [states, size] float32
  FloatRows prediction, shift;
  double* ratios;                    // [particles, branch]
  GaussianCoefficients coefficients; // every sigma positive
  Indices ancestors;                 // [particles], in [0, states); default: the identity
  std::int64_t states, particles, groups, branch, size;
  int threads;
};

struct MaskedLogRatioArgs {
  const void *tokens,
      *children;    // [states, length]; [particles, branch, length]; the value `vocab` is the mask
  bool wide_tokens; // int64, else int32

  const void* logits; // [states, length, vocab], as in masked_step
  LogitType logit_type;
  std::int64_t state_stride, logits_stride;
  const float* bias; // [vocab] or [length, vocab], or null
  std::int64_t bias_stride;
  const float* shift;                            // [states, length, vocab]
  std::int64_t shift_state_stride, shift_stride; // elements from one state, one position, to the next
  double* ratios;                                // [particles, branch]
  Indices ancestors;                             // [particles], in [0, states); default: the identity
  const std::int64_t* lengths;                   // [groups]: positions from here on are padding; or null
  std::int64_t states, particles, groups, branch, length, vocab;
  float inverse_temperature; // positive
  int threads;
};

// gaussian_log_ratio: out_of_range: an ancestor. masked_log_ratio:
// - out_of_range: index below `particles`, an ancestor; then a token, in [states, length]; then one of a
// child;
// - invalid_value (NaN, +inf or above 1e9) and degenerate (every token forbidden): 2 * row, of logits, or 2 *
// row
//   + 1, of logits with the shift; row = state * length + position;
// - degenerate, from 2 * states * length on: a child's token, that the guided law never draws.
#define FG_LOG_RATIO_KERNELS(X)                                                                              \
  X(gaussian_log_ratio, GaussianLogRatioArgs)                                                                \
  X(masked_log_ratio, MaskedLogRatioArgs)

} // namespace fg
