// offset + 1/2 (x - center)^T A (x - center), A a diagonal or a matrix.
#pragma once

#include "cpu/value_dense.h"

namespace fg::FG_LEVEL {
namespace {

// All in double.
struct DiagonalQuadraticValue {
  static std::int64_t bytes(const EvaluateArgs& a) { return a.columns * kDenseRows * 4; }

  static void tile(const EvaluateArgs& a, const float* x, double* sums) {
    for (std::int64_t row = 0; row < kDenseRows; row += 4 * kWideLanes) {
      Doubles sum[4] = {};
      for (std::int64_t d = 0; d < a.columns; ++d) {
        const Doubles scale = doubles(a.parameters[0][d]), center = doubles(a.parameters[1][d]);
        for (int i = 0; i < 4; ++i) {
          const Doubles y = doubles_at(x + d * kDenseRows + row + i * kWideLanes) - center;
          sum[i] = sum[i] + scale * (y * y);
        }
      }
      for (int i = 0; i < 4; ++i)
        store(sums + row + i * kWideLanes, sum[i] * 0.5 + doubles(a.parameters[2][0]));
    }
  }
};

// x - center and A (x - center) in float, their product in double.
struct QuadraticValue {
  static std::int64_t bytes(const EvaluateArgs& a) { return 2 * a.columns * kDenseRows * 4; }

  static void tile(const EvaluateArgs& a, float* x, double* sums) {
    const std::int64_t n = a.columns;
    for (std::int64_t d = 0; d < n; ++d)
      for (std::int64_t row = 0; row < kDenseRows; ++row)
        x[d * kDenseRows + row] -= a.parameters[1][d];
    float* y = x + n * kDenseRows;
    multiply(a.parameters[0], nullptr, n, n, x, y);
    for (std::int64_t row = 0; row < kDenseRows; row += 4 * kWideLanes) {
      Doubles sum[4] = {};
      for (std::int64_t d = 0; d < n; ++d)
        for (int i = 0; i < 4; ++i) {
          const std::int64_t at = d * kDenseRows + row + i * kWideLanes;
          sum[i] = sum[i] + doubles_at(x + at) * doubles_at(y + at);
        }
      for (int i = 0; i < 4; ++i)
        store(sums + row + i * kWideLanes, sum[i] * 0.5 + doubles(a.parameters[2][0]));
    }
  }
};

} // namespace
} // namespace fg::FG_LEVEL
