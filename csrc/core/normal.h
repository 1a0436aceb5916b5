// Standard normals by Box and Muller, in float by a fixed sequence of IEEE operations.
//
// Two 32-bit words make two normals r cos(theta) and r sin(theta). With a, b the words, bit 31 the highest:
// - r = sqrt(-2 log u), u = (n + 1/2) / 2^39 with n the upper 31 bits of a followed by the lower 8 of b. The
//   least u is 2^-40: the largest |z| is sqrt(80 log 2) = 7.447, which a normal exceeds with probability
//   1e-13, and beyond |z| = 5 (u < 2^-18) there are 2 million values of r. u is rounded once to float.
// - theta: a point w of the grid of 2^22 in (-1/2, 1/2), from bits 8 to 29 of b, is the angle w * pi/2; bit
// 31
//   reflects the cosine, bit 30 swaps the two, so that all of the circle is covered evenly.
// The square root is the correctly rounded one. Errors of r, sine and cosine are below 2^-22 of their value.
//
// V is float or a vector of floats. Polynomials: minimax in the relative error, coefficients rounded one
// after the other.
#pragma once

#include <cstdint>

#include "core/annotations.h"

namespace fg {

constexpr int kRadiusBits = 39;
constexpr std::int32_t kSqrtHalfBits = 0x3F3504F3; // of float

// -2 log(u) for u = (1 + f) / 2^t, 1 + f in [sqrt(1/2), sqrt(2)), t whole. At u = 1 it is 0.
template <typename V> FG_HD V minus_two_log(V t, V f) {
  V p = f * -0x1.6602ccp-3f + 0x1.2510d6p-2f;
  p = p * f + -0x1.317ed0p-2f;
  p = p * f + 0x1.535ab0p-2f;
  p = p * f + -0x1.98d332p-2f;
  p = p * f + 0x1.0004aep-1f;
  p = p * f + -0x1.5556f2p-1f;
  p = p * f + 0x1.fffffap-1f;
  p = p * f + -2.0f;
  return t * 0x1.62e430p+0f + p * f;
}

// sin(w * pi/2) and cos(w * pi/2) for |w| <= 1/2, given w and its square.
template <typename V> FG_HD V quarter_sine(V w, V square) {
  V p = square * -0x1.32f65ap-8f + 0x1.467fdcp-4f;
  p = p * square + -0x1.4abc22p-1f;
  p = p * square + 0x1.921fb6p+0f;
  return p * w;
}
template <typename V> FG_HD V quarter_cosine(V square) {
  V p = square * -0x1.4e7cccp-6f + 0x1.03b064p-2f;
  p = p * square + -0x1.3bd39cp+0f;
  return p * square + 1.0f;
}

} // namespace fg
