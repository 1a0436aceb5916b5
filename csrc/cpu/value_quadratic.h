// offset + 1/2 (x - center)^T A (x - center), A a diagonal or a matrix.
#pragma once

#include "cpu/value_dense.h"
#include "cpu/value_sums.h"

namespace fg::FG_LEVEL {
namespace {

struct DiagonalQuadraticValue {
  static std::int64_t bytes(const EvaluateArgs& a) { return 2 * a.columns * 8; }

  static Status rows(const EvaluateArgs& a, std::int64_t first, std::int64_t count, float* out,
                     void* workspace) {
    auto* diagonal = static_cast<double*>(workspace);
    auto* center = diagonal + a.columns;
    to_double(a.parameters[0], a.columns, diagonal);
    to_double(a.parameters[1], a.columns, center);
    const double offset = a.parameters[2][0];
    sum_columns(
        static_cast<const float*>(a.states) + first * a.columns, count, a.columns,
        [diagonal, center](auto x, std::int64_t d) {
          const auto y = x - from(center, d, x);
          return from(diagonal, d, x) * (y * y);
        },
        [out, offset](std::int64_t row, double sum) { out[row] = static_cast<float>(sum * 0.5 + offset); });
    return {};
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
