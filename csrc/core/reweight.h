// The update of log-weights, shared by the kernels of every device.
#pragma once

#include <cmath>

#include "core/annotations.h"
#include "core/exp.h"

namespace fg {

// What the inputs of some particles come to: `Value` is a number or a register of them, and `Flags` are not
// zero where a particle is accepted.
template <typename Value, typename Flags> struct Updated {
  Value log_weights;
  Flags accepted;
};

// Rounds after every operation; a particle that is dead stays so, though (-inf) - (-inf) is not a number.
template <typename Value, typename Flags, bool ratio, typename Real>
FG_HD Updated<Value, Flags> update_log_weights(const Value& log_weights, const Value& values,
                                               const Value& previous_values, const Value& log_ratio,
                                               Real beta, Real previous_beta) {
  constexpr Real inf = static_cast<Real>(INFINITY), most = static_cast<Real>(kMaxLogWeight);
  Value update = beta * values - previous_beta * previous_values;
  Flags dead = (log_weights == -inf) | (values == -inf);
  Flags accepted = (log_weights < inf) & (values < inf) & (previous_values < inf);
  if constexpr (ratio) {
    update = update + log_ratio;
    dead |= log_ratio == -inf;
    accepted &= log_ratio < inf;
  }
  const Value updated = dead ? Value{} - inf : log_weights + update;
  return {updated, accepted & (updated <= most)};
}

} // namespace fg
