// A small dense network, its layers fused over a tile of states. Everything in float, each sum from the bias
// on in the order of the inputs. At 64-128-128-1 the products cost what the two multipliers and two adders of
// a core need: unfused is no slower than fused there.
#pragma once

#include "cpu/value_dense.h"

namespace fg::FG_LEVEL {
namespace {

struct MlpValue {
  // The widths of the input and of every layer.
  static const std::int64_t* widths(const EvaluateArgs& a) { return a.settings + 2; }
  static std::int64_t layers(const EvaluateArgs& a) { return a.settings[1]; }

  static std::int64_t widest(const EvaluateArgs& a) {
    std::int64_t most = 0;
    for (std::int64_t i = 0; i <= layers(a); ++i)
      most = widths(a)[i] > most ? widths(a)[i] : most;
    return most;
  }
  static std::int64_t bytes(const EvaluateArgs& a) { return 2 * widest(a) * kDenseRows * 4; }

  template <Activation activation> static void apply(float* y, std::int64_t n) {
    for (std::int64_t i = 0; i < n; i += kLanes)
      store(y + i, activate(activation, load<Floats>(y + i)));
  }

  static void tile(const EvaluateArgs& a, float* x, double* sums) {
    const std::int64_t* width = widths(a);
    float* y = x + widest(a) * kDenseRows;
    for (std::int64_t layer = 0; layer < layers(a); ++layer) {
      const std::int64_t outputs = width[layer + 1];
      multiply(a.parameters[2 * layer], a.parameters[2 * layer + 1], width[layer], outputs, x, y);
      if (layer + 1 < layers(a)) {
        switch (static_cast<Activation>(a.settings[0])) {
        case Activation::relu:
          apply<Activation::relu>(y, outputs * kDenseRows);
          break;
        case Activation::tanh:
          apply<Activation::tanh>(y, outputs * kDenseRows);
          break;
        case Activation::silu:
          apply<Activation::silu>(y, outputs * kDenseRows);
          break;
        case Activation::gelu_tanh:
          apply<Activation::gelu_tanh>(y, outputs * kDenseRows);
          break;
        }
      }
      float* const free = x;
      x = y;
      y = free;
    }
    for (std::int64_t i = 0; i < kDenseRows; ++i)
      sums[i] = x[i];
  }
};

} // namespace
} // namespace fg::FG_LEVEL
