// Values of float states: kDenseRows states are transposed into a tile [columns, kDenseRows], so that every
// lane is a state of its own and sums run in the order of the columns at any width of registers.
#pragma once

#include <cstdint>
#include <utility>

#include "core/activation.h"
#include "cpu/lanes.h"
#include "cpu/value_rows.h"

namespace fg::FG_LEVEL {
namespace {

constexpr std::int64_t kDenseRows = 64;

// One stage of a transposition: bit S of the place changes sides between register and lane.
template <int S, int... Lane> FG_HD void exchange(Floats& a, Floats& b, std::integer_sequence<int, Lane...>) {
  const Floats first = __builtin_shufflevector(a, b, ((Lane & S) ? kLanes + Lane - S : Lane)...);
  b = __builtin_shufflevector(a, b, ((Lane & S) ? kLanes + Lane : Lane + S)...);
  a = first;
}

template <int S> FG_HD void transpose_stages(Floats (&r)[kLanes]) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i) {
    if ((i & S) == 0)
      exchange<S>(r[i], r[i + S], std::make_integer_sequence<int, kLanes>{});
  }
  if constexpr (S > 1)
    transpose_stages<S / 2>(r);
}

// Copies `count` states to the lanes of a tile; the lanes beyond repeat the last.
inline void transpose_rows(const float* states, std::int64_t count, std::int64_t columns, float* tile) {
  for (std::int64_t row = 0; row < kDenseRows; row += kLanes) {
    const float* rows[kLanes];
    for (int i = 0; i < kLanes; ++i)
      rows[i] = states + (row + i < count ? row + i : count - 1) * columns;
    if (columns < kLanes) {
      for (std::int64_t d = 0; d < columns; ++d)
        for (int i = 0; i < kLanes; ++i)
          tile[d * kDenseRows + row + i] = rows[i][d];
      continue;
    }
    for (std::int64_t next = 0; next < columns; next += kLanes) {
      const std::int64_t d = next + kLanes <= columns ? next : columns - kLanes;
      Floats r[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i)
        r[i] = load<Floats>(rows[i] + d);
      transpose_stages<kLanes / 2>(r);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i)
        store(tile + (d + i) * kDenseRows + row, r[i]);
    }
  }
}

// `Outputs` rows of weights times `Registers` registers of states: sums start at the bias, or 0.
template <int Outputs, int Registers>
FG_HD void multiply_rows(const float* weight, const float* bias, std::int64_t inputs, const float* x,
                         float* y) {
  Floats sums[Outputs][Registers];
  for (int o = 0; o < Outputs; ++o)
    for (int r = 0; r < Registers; ++r)
      sums[o][r] = floats(bias != nullptr ? bias[o] : 0.0f);
  for (std::int64_t d = 0; d < inputs; ++d) {
    Floats in[Registers];
    for (int r = 0; r < Registers; ++r)
      in[r] = load<Floats>(x + d * kDenseRows + r * kLanes);
#pragma GCC unroll 8
    for (int o = 0; o < Outputs; ++o)
      for (int r = 0; r < Registers; ++r)
        sums[o][r] = sums[o][r] + in[r] * weight[o * inputs + d];
  }
  for (int o = 0; o < Outputs; ++o)
    for (int r = 0; r < Registers; ++r)
      store(y + o * kDenseRows + r * kLanes, sums[o][r]);
}

#if defined(FG_LEVEL_avx512) || defined(FG_LEVEL_neon)
constexpr int kOutputs = 8; // of 32 registers, 16 hold sums
#else
constexpr int kOutputs = 4; // of 16 registers, 8 hold sums
#endif

// y [outputs, kDenseRows] = bias + weight [outputs, inputs] x [inputs, kDenseRows].
inline void multiply(const float* weight, const float* bias, std::int64_t inputs, std::int64_t outputs,
                     const float* x, float* y) {
  std::int64_t o = 0;
  for (; o + kOutputs <= outputs; o += kOutputs)
    for (std::int64_t row = 0; row < kDenseRows; row += 2 * kLanes)
      multiply_rows<kOutputs, 2>(weight + o * inputs, bias != nullptr ? bias + o : nullptr, inputs, x + row,
                                 y + o * kDenseRows + row);
  for (; o < outputs; ++o)
    for (std::int64_t row = 0; row < kDenseRows; row += 4 * kLanes)
      multiply_rows<1, 4>(weight + o * inputs, bias != nullptr ? bias + o : nullptr, inputs, x + row,
                          y + o * kDenseRows + row);
}

// Doubles of the states at `at`, half a register of floats.
FG_HD Doubles doubles_at(const float* at) {
  return to_doubles(load<HalfFloats>(at));
}

// Rounds sums [kDenseRows] of doubles to the values of `count` states.
inline void round_values(const double* sums, std::int64_t count, float* out) {
  for (std::int64_t i = 0; i < count; ++i)
    out[i] = static_cast<float>(sums[i]);
}

} // namespace
} // namespace fg::FG_LEVEL
