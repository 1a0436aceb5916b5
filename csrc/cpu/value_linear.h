// bias + weight . x, products and sums in double.
#pragma once

#include "cpu/value_dense.h"

namespace fg::FG_LEVEL {
namespace {

struct LinearValue {
  static std::int64_t bytes(const EvaluateArgs& a) { return a.columns * kDenseRows * 4; }

  static void tile(const EvaluateArgs& a, const float* x, double* sums) {
    for (std::int64_t row = 0; row < kDenseRows; row += 4 * kWideLanes) {
      Doubles sum[4];
      for (Doubles& s : sum)
        s = doubles(a.parameters[1][0]);
      for (std::int64_t d = 0; d < a.columns; ++d) {
        const Doubles weight = doubles(a.parameters[0][d]);
        for (int i = 0; i < 4; ++i)
          sum[i] = sum[i] + weight * doubles_at(x + d * kDenseRows + row + i * kWideLanes);
      }
      for (int i = 0; i < 4; ++i)
        store(sums + row + i * kWideLanes, sum[i]);
    }
  }
};

} // namespace
} // namespace fg::FG_LEVEL
