// The sum of a score a position, in double; where the scores cover a window only, the best window's.
#pragma once

#include <cmath>

#include "cpu/value_tokens.h"

namespace fg::FG_LEVEL {
namespace {

template <typename Token> struct PositionWeights {
  static constexpr std::int64_t kRows = 64;

  static std::int64_t vocab(const EvaluateArgs& a) { return a.settings[1]; }
  static std::int64_t bytes(const EvaluateArgs&) { return 0; }

  // Of `Rows` rows at once: one sum would wait for its additions.
  template <int Rows> static void best_windows(const EvaluateArgs& a, const Token* tokens, float* out) {
    const std::int64_t window = a.settings[0], columns = a.columns, size = vocab(a);
    double best[Rows];
    for (double& b : best)
      b = -INFINITY;
    for (std::int64_t start = 0; start + window <= columns; ++start) {
      double sum[Rows] = {};
      for (std::int64_t k = 0; k < window; ++k) {
        const float* scores = a.parameters[0] + k * size;
        for (int r = 0; r < Rows; ++r)
          sum[r] += static_cast<double>(scores[tokens[r * columns + start + k]]);
      }
      for (int r = 0; r < Rows; ++r)
        best[r] = sum[r] > best[r] ? sum[r] : best[r];
    }
    for (int r = 0; r < Rows; ++r)
      out[r] = static_cast<float>(best[r]);
  }

  static void tile(const EvaluateArgs& a, const Token* tokens, std::int64_t count, float* out, void*) {
    std::int64_t row = 0;
    for (; row + 8 <= count; row += 8)
      best_windows<8>(a, tokens + row * a.columns, out + row);
    for (; row < count; ++row)
      best_windows<1>(a, tokens + row * a.columns, out + row);
  }
};

} // namespace
} // namespace fg::FG_LEVEL
