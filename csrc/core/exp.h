// Weights as integers: floor(exp(x) * 2^(50 - e)) by a fixed sequence of IEEE operations, the same on every
// backend.
//
// t = x * log2(e) is computed in double, so that offsets of thousands lose nothing; t = k + f with k an
// integer and |f| <= 1/2; 2^f is a polynomial in the precision of the input, multiplications and additions
// never fused. Then the mantissa is shifted, which truncates exactly. Relative error before truncation: below
// 2^-23 for float, 2^-51 for double at |x| <= 1 (the rounding of t adds |t| * 2^-53).
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "core/annotations.h"

namespace fg {

FG_HD std::int64_t bits_of(double x) {
  std::int64_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits;
}

constexpr double kLog2E = 0x1.71547652b82fep+0;
constexpr double kLn2 = 0x1.62e42fefa39efp-1;
constexpr double kMaxLogWeight = 1e9; // beyond: below it a weight of zero, above it refused
constexpr int kWeightBits = 50;

// The exponent of a block whose largest log-weight is `max` (finite): the largest weight then lies in [2^48,
// 2^49].
FG_HD std::int32_t block_exponent(double max) {
  return static_cast<std::int32_t>(std::ceil(max * kLog2E)) + 1;
}

// 2^f on [-1/2, 1/2]; minimax in the relative error, coefficients rounded one after the other. V is float or
// double, or a vector of them: kernels with intrinsics share these sequences.
template <typename V> FG_HD V exp2_fraction_less_one_float(V f) {
  V p = f * 0x1.3f906cp-13f + 0x1.5f0a66p-10f;
  p = p * f + 0x1.3b30b0p-7f;
  p = p * f + 0x1.c6af78p-5f;
  p = p * f + 0x1.ebfbd8p-3f;
  p = p * f + 0x1.62e430p-1f;
  return p * f;
}
template <typename V> FG_HD V exp2_fraction_float(V f) {
  return exp2_fraction_less_one_float(f) + 1.0f;
}

template <typename V> FG_HD V exp2_fraction_double(V f) {
  V p = f * 0x1.e9471c875b804p-32 + 0x1.e61c1058a1947p-28;
  p = p * f + 0x1.b5253f6036401p-24;
  p = p * f + 0x1.62bfc71ea7788p-20;
  p = p * f + 0x1.ffcbfc595bcf6p-17;
  p = p * f + 0x1.4309130f139cbp-13;
  p = p * f + 0x1.5d87fe78a111cp-10;
  p = p * f + 0x1.3b2ab6fb9ffb3p-7;
  p = p * f + 0x1.c6b08d704a122p-5;
  p = p * f + 0x1.ebfbdff82c5a5p-3;
  p = p * f + 0x1.62e42fefa39efp-1;
  return p * f + 1.0;
}

FG_HD float exp2_fraction(float f) {
  return exp2_fraction_float(f);
}
FG_HD double exp2_fraction(double f) {
  return exp2_fraction_double(f);
}

// The mantissa of 2^f as an integer scaled by 2^50 (float: 24 bits and 26 zeros) or 2^53 (double).
FG_HD std::int64_t mantissa(float f) {
  return static_cast<std::int64_t>(static_cast<std::int32_t>(exp2_fraction(f) * 0x1p24f)) << 26;
}
FG_HD std::int64_t mantissa(double f) {
  return static_cast<std::int64_t>(exp2_fraction(f) * 0x1p53);
}

// Adding this to a double below 2^51 in magnitude rounds it to the nearest integer, to be read in the low
// bits.
constexpr double kRound = 0x1.8p52;

// floor(exp(x) * 2^(50 - e)); needs x <= the maximum that gave e, and no NaN. -inf and x < -1e9 give zero.
template <typename Real> FG_HD std::int64_t scaled_weight(Real x, std::int32_t e) {
  if (!(static_cast<double>(x) >= -kMaxLogWeight))
    return 0;
  // Conversions of 64 bits are the slowest operations of a GPU: k is rounded and read without any.
  const double t = static_cast<double>(x) * kLog2E, rounded = t + kRound;
  const std::int64_t k = bits_of(rounded) - bits_of(kRound);
  const std::int64_t drop = e - k + (sizeof(Real) == 8 ? 3 : 0);
  if (drop >= 63)
    return 0;
  return mantissa(static_cast<Real>(t - (rounded - kRound))) >> static_cast<int>(drop);
}

} // namespace fg
