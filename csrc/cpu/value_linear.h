// bias + weight . x.
#pragma once

#include "cpu/value_sums.h"

namespace fg::FG_LEVEL {
namespace {

struct LinearValue {
  static std::int64_t bytes(const EvaluateArgs& a) { return a.columns * 8; }

  static Status rows(const EvaluateArgs& a, std::int64_t first, std::int64_t count, float* out,
                     void* workspace) {
    auto* weight = static_cast<double*>(workspace);
    to_double(a.parameters[0], a.columns, weight);
    const double bias = a.parameters[1][0];
    sum_columns(
        static_cast<const float*>(a.states) + first * a.columns, count, a.columns,
        [weight](auto x, std::int64_t d) { return from(weight, d, x) * x; },
        [out, bias](std::int64_t row, double sum) { out[row] = static_cast<float>(bias + sum); });
    return {};
  }
};

} // namespace
} // namespace fg::FG_LEVEL
