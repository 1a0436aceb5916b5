// Vectors of one register by the compiler's extensions, the width set by the SIMD level, and the arithmetic
// of csrc/core on them. Everything is inlined, so no instruction leaves the level it was compiled for.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "core/exp.h"
#include "core/philox.h"

namespace fg::FG_LEVEL {

#if defined(FG_LEVEL_avx512)
constexpr int kLanes = 16; // floats in a register
#define FG_LOW_LANES 0, 1, 2, 3, 4, 5, 6, 7
#define FG_HIGH_LANES 8, 9, 10, 11, 12, 13, 14, 15
#elif defined(FG_LEVEL_avx2)
constexpr int kLanes = 8;
#define FG_LOW_LANES 0, 1, 2, 3
#define FG_HIGH_LANES 4, 5, 6, 7
#else
constexpr int kLanes = 4;
#define FG_LOW_LANES 0, 1
#define FG_HIGH_LANES 2, 3
#endif
constexpr int kWideLanes = kLanes / 2; // doubles or 64-bit integers in a register

using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = std::int32_t __attribute__((vector_size(4 * kLanes)));
using UInts = std::uint32_t __attribute__((vector_size(4 * kLanes)));
using Shorts = std::uint16_t __attribute__((vector_size(2 * kLanes)));
using HalfFloats = float __attribute__((vector_size(2 * kLanes)));
using HalfInts = std::int32_t __attribute__((vector_size(2 * kLanes)));
using Doubles = double __attribute__((vector_size(4 * kLanes)));
using Longs = std::int64_t __attribute__((vector_size(4 * kLanes)));
using ULongs = std::uint64_t __attribute__((vector_size(4 * kLanes)));

template <typename Vector> FG_HD Vector load(const void* from) {
  Vector v;
  __builtin_memcpy(&v, from, sizeof v);
  return v;
}
template <typename Vector> FG_HD void store(void* to, Vector v) {
  __builtin_memcpy(to, &v, sizeof v);
}

// x - 0 is x for every x, -0 and NaN too, so this costs one broadcast.
FG_HD Floats floats(float x) {
  return x - Floats{};
}
FG_HD Doubles doubles(double x) {
  return x - Doubles{};
}
FG_HD ULongs ulongs(std::uint64_t x) {
  return x - ULongs{};
}

FG_HD ULongs wide_lane_numbers() {
  ULongs v;
  for (int i = 0; i < kWideLanes; ++i)
    v[i] = static_cast<std::uint64_t>(i);
  return v;
}
FG_HD Ints lane_numbers() {
  Ints v;
  for (int i = 0; i < kLanes; ++i)
    v[i] = i;
  return v;
}

FG_HD float largest(Floats v) {
  float most = v[0];
  for (int i = 1; i < kLanes; ++i)
    most = v[i] > most ? v[i] : most;
  return most;
}
FG_HD std::int64_t total(Longs v) {
  std::int64_t sum = 0;
  for (int i = 0; i < kWideLanes; ++i)
    sum += v[i];
  return sum;
}

// The 64-bit products of the low 32 bits of each lane; the high halves may hold anything.
FG_HD ULongs multiply_low(ULongs a, std::uint32_t b) {
#if defined(FG_LEVEL_avx512)
  // The form without a mask trips a false warning of gcc 12 about an uninitialised register.
  return (ULongs)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, _mm512_set1_epi64(b));
#elif defined(FG_LEVEL_avx2)
  return (ULongs)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#elif defined(__x86_64__)
  return (ULongs)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(b));
#else
  return (a & 0xFFFFFFFFu) * static_cast<std::uint64_t>(b);
#endif
}

// Philox4x32-10 on one counter a 64-bit lane. The low halves of w are the words, the high halves rubbish.
struct WordLanes {
  ULongs w[4];
};
FG_HD WordLanes philox_lanes(std::uint64_t key, ULongs c0, ULongs c1, ULongs c2, ULongs c3) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const ULongs p0 = multiply_low(c0, 0xD2511F53u);
    const ULongs p1 = multiply_low(c2, 0xCD9E8D57u);
    c0 = (p1 >> 32) ^ c1 ^ ulongs(k0);
    c2 = (p0 >> 32) ^ c3 ^ ulongs(k1);
    c1 = p1;
    c3 = p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// scaled_weight(y[i], e) of csrc/core/exp.h for one register of floats, none of them NaN or above the maximum
// that gave e, and none in [-inf, -1e9) unless that maximum is above -1e9 + 64. The same bits: t is rounded
// to an integer by adding 1.5 * 2^52, whose low bits are then that integer; the polynomial is scaled by 2^24
// throughout, which is exact; a t that would be dropped by 62 bits or more is lifted to 62, where 2^50 >> 62
// is zero.
struct Weights {
  Longs low, high;
};
FG_HD Weights weigh(const float* y, std::int32_t e) {
  constexpr double kRound = 0x1.8p52;
  constexpr std::int64_t kRoundBits = 0x4338000000000000;
  const Doubles least = doubles(static_cast<double>(e) - 62.0);
  Doubles t0 = __builtin_convertvector(load<HalfFloats>(y), Doubles) * kLog2E;
  Doubles t1 = __builtin_convertvector(load<HalfFloats>(y + kWideLanes), Doubles) * kLog2E;
  t0 = t0 > least ? t0 : least;
  t1 = t1 > least ? t1 : least;
  const Doubles k0 = t0 + kRound, k1 = t1 + kRound;
  const HalfFloats f0 = __builtin_convertvector(t0 - (k0 - kRound), HalfFloats);
  const HalfFloats f1 = __builtin_convertvector(t1 - (k1 - kRound), HalfFloats);
  const Floats f = __builtin_shufflevector(f0, f1, FG_LOW_LANES, FG_HIGH_LANES);
  Floats p = f * (0x1.3f906cp-13f * 0x1p24f) + 0x1.5f0a66p-10f * 0x1p24f;
  p = p * f + 0x1.3b30b0p-7f * 0x1p24f;
  p = p * f + 0x1.c6af78p-5f * 0x1p24f;
  p = p * f + 0x1.ebfbd8p-3f * 0x1p24f;
  p = p * f + 0x1.62e430p-1f * 0x1p24f;
  p = p * f + 0x1p24f;
  const Ints m = __builtin_convertvector(p, Ints);
  const Longs m0 = __builtin_convertvector(__builtin_shufflevector(m, m, FG_LOW_LANES), Longs);
  const Longs m1 = __builtin_convertvector(__builtin_shufflevector(m, m, FG_HIGH_LANES), Longs);
  const ULongs base = ulongs(static_cast<std::uint64_t>(e + kRoundBits));
  return {(Longs)(((ULongs)m0 << 26) >> (base - (ULongs)k0)),
          (Longs)(((ULongs)m1 << 26) >> (base - (ULongs)k1))};
}

} // namespace fg::FG_LEVEL
