// Activations of small networks by a fixed sequence of IEEE operations, mirrored in reference/activation.py.
// V is float or a vector of floats. NaN stays NaN.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/annotations.h"
#include "core/exp.h"

namespace fg {

enum class Activation : int { relu = 0, tanh, silu, gelu_tanh };

// The integers that stand for the bits of V: those that a comparison of vectors gives.
template <typename V> struct BitsOf {
  using type = decltype(V{} < V{});
};
template <> struct BitsOf<float> {
  using type = std::uint32_t;
};

// 2^t = power * (1 + less_one).
template <typename V> struct Power {
  V power, less_one;
};

// For t in [-126, 126]. Adding 1.5 * 2^23 rounds to an integer, to be read in the low bits.
template <typename V> FG_HD Power<V> split_power(V t) {
  typename BitsOf<V>::type k;
  const V rounded = t + 0x1.8p23f;
  std::memcpy(&k, &rounded, sizeof k);
  k = (k - (0x4B400000 - 127)) << 23;
  V power;
  std::memcpy(&power, &k, sizeof power);
  return {power, exp2_fraction_less_one_float(t - (rounded - 0x1.8p23f))};
}

template <typename V> FG_HD V within(V t, float bound) {
  t = t < V{} - bound ? V{} - bound : t;
  return t > V{} + bound ? V{} + bound : t;
}

template <typename V> FG_HD V relu(V x) {
  return x < V{} ? V{} : x;
}

// e / (e + 2) with e = exp(2 x) - 1, which keeps its digits near 0.
template <typename V> FG_HD V tanh_fixed(V x) {
  const Power<V> p = split_power(within(x * 0x1.715476p+1f, 40.0f));
  const V e = p.less_one * p.power + (p.power - 1.0f);
  return e / (e + 2.0f);
}

// x / (1 + exp(-x)).
template <typename V> FG_HD V silu(V x) {
  const Power<V> p = split_power(within(x * -0x1.715476p+0f, 126.0f));
  return x / ((p.less_one + 1.0f) * p.power + 1.0f);
}

// x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))).
template <typename V> FG_HD V gelu_tanh(V x) {
  const V inner = x * (x * x * 0x1.2444f2p-5f + 0x1.988454p-1f);
  return x * 0.5f * (tanh_fixed(inner) + 1.0f);
}

template <typename V> FG_HD V activate(Activation activation, V x) {
  switch (activation) {
  case Activation::tanh:
    return tanh_fixed(x);
  case Activation::silu:
    return silu(x);
  case Activation::gelu_tanh:
    return gelu_tanh(x);
  default:
    return relu(x);
  }
}

} // namespace fg
