// The natural logarithm in double by a fixed sequence of IEEE operations, the same on every backend.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/annotations.h"
#include "core/exp.h"

namespace fg {

FG_HD double double_of(std::int64_t bits) {
  double x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// 2^n for n in [-1022, 1023].
FG_HD double power_of_two(std::int64_t n) {
  return double_of((n + 1023) << 52);
}

// k with x = m * 2^k, m in [sqrt(1/2), sqrt(2)); x positive and normal.
FG_HD std::int64_t binary_exponent(double x) {
  return (bits_of(x) - 0x3FE6A09E667F3BCD) >> 52;
}

// m of the same splitting.
FG_HD double binary_mantissa(double x, std::int64_t k) {
  return double_of(bits_of(x) - k * (std::int64_t{1} << 52));
}

// log(m) on [sqrt(1/2), sqrt(2)] as 2 artanh(s), s = (m - 1) / (m + 1); the series is cut below 2^-57. V is
// double, or a vector of it.
template <typename V> FG_HD V log_mantissa(V m) {
  const V s = (m - 1.0) / (m + 1.0);
  const V z = s * s;
  V p = z * (1.0 / 23.0) + 1.0 / 21.0;
  p = p * z + 1.0 / 19.0;
  p = p * z + 1.0 / 17.0;
  p = p * z + 1.0 / 15.0;
  p = p * z + 1.0 / 13.0;
  p = p * z + 1.0 / 11.0;
  p = p * z + 1.0 / 9.0;
  p = p * z + 1.0 / 7.0;
  p = p * z + 1.0 / 5.0;
  p = p * z + 1.0 / 3.0;
  p = p * z + 1.0;
  return (s + s) * p;
}

// log(x) for positive normal x, within about 2 units in the last place.
FG_HD double log_fixed(double x) {
  const std::int64_t k = binary_exponent(x);
  return static_cast<double>(k) * kLn2 + log_mantissa(binary_mantissa(x, k));
}

} // namespace fg
