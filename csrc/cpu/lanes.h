// Vectors of one register by the compiler's extensions, the width set by the SIMD level, and the arithmetic
// of csrc/core on them. Everything is inlined, so no instruction leaves the level it was compiled for.
#pragma once

#include <cstdint>

#include "core/exp.h"
#include "core/philox.h"
#include "cpu/intrinsics.h"

namespace fg::FG_LEVEL {

#if defined(FG_LEVEL_avx512)
constexpr int kLanes = 16; // floats in a register
#define FG_PAIRS 0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15
#define FG_LOW_HALVES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define FG_HIGH_HALVES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif defined(FG_LEVEL_avx2)
constexpr int kLanes = 8;
#define FG_PAIRS 0, 1, 4, 5, 2, 3, 6, 7
#define FG_LOW_HALVES 0, 8, 1, 9, 2, 10, 3, 11
#define FG_HIGH_HALVES 4, 12, 5, 13, 6, 14, 7, 15
#else
constexpr int kLanes = 4;
#define FG_PAIRS 0, 1, 2, 3
#define FG_LOW_HALVES 0, 4, 1, 5
#define FG_HIGH_HALVES 2, 6, 3, 7
#endif
constexpr int kWideLanes = kLanes / 2; // doubles or 64-bit integers in a register

using Floats = float __attribute__((vector_size(4 * kLanes)));
using Ints = std::int32_t __attribute__((vector_size(4 * kLanes)));
using UInts = std::uint32_t __attribute__((vector_size(4 * kLanes)));
using Shorts = std::uint16_t __attribute__((vector_size(2 * kLanes)));
using HalfFloats = float __attribute__((vector_size(2 * kLanes)));
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

// b where a lane of a is NaN.
FG_HD Floats larger(Floats a, Floats b) {
#if defined(FG_LEVEL_avx512)
  return (Floats)_mm512_max_ps((__m512)a, (__m512)b);
#else
  return a > b ? a : b;
#endif
}
// No lane may be NaN.
FG_HD float largest(Floats v) {
#if defined(FG_LEVEL_avx512)
  const __m256 eight = _mm256_max_ps(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7),
                                     __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
#elif defined(FG_LEVEL_avx2)
  const __m256 eight = v;
#endif
#if defined(FG_LEVEL_avx512) || defined(FG_LEVEL_avx2)
  __m128 few = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  few = _mm_max_ps(few, _mm_movehl_ps(few, few));
  return _mm_cvtss_f32(_mm_max_ss(few, _mm_movehdup_ps(few)));
#else
  float most = v[0];
  for (int i = 1; i < kLanes; ++i)
    most = v[i] > most ? v[i] : most;
  return most;
#endif
}
// Bit i: v[i] == x.
FG_HD std::uint32_t equal_lanes(Floats v, float x) {
#if defined(FG_LEVEL_avx512)
  return _mm512_cmp_ps_mask(v, floats(x), _CMP_EQ_OQ);
#elif defined(FG_LEVEL_avx2)
  return static_cast<std::uint32_t>(_mm256_movemask_ps((Floats)(v == floats(x))));
#elif defined(__x86_64__)
  return static_cast<std::uint32_t>(_mm_movemask_ps((Floats)(v == floats(x))));
#else
  std::uint32_t bits = 0;
  for (int i = 0; i < kLanes; ++i)
    bits |= static_cast<std::uint32_t>(v[i] == x) << i;
  return bits;
#endif
}
FG_HD std::int64_t total(Longs v) {
#if defined(FG_LEVEL_avx512)
  const __m256i four =
      (__m256i)(__builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7));
#elif defined(FG_LEVEL_avx2)
  const __m256i four = (__m256i)v;
#endif
#if defined(FG_LEVEL_avx512) || defined(FG_LEVEL_avx2)
  const __m128i two = _mm_add_epi64(_mm256_castsi256_si128(four), _mm256_extracti128_si256(four, 1));
  return _mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)));
#else
  return v[0] + v[1];
#endif
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

// The same of two vectors.
FG_HD ULongs multiply_low(ULongs a, ULongs b) {
#if defined(FG_LEVEL_avx512)
  return (ULongs)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, (__m512i)b);
#elif defined(FG_LEVEL_avx2)
  return (ULongs)_mm256_mul_epu32((__m256i)a, (__m256i)b);
#elif defined(__x86_64__)
  return (ULongs)_mm_mul_epu32((__m128i)a, (__m128i)b);
#else
  return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}
// mulhi64 of csrc/core/integer.h a lane.
FG_HD ULongs multiply_high(ULongs a, ULongs b) {
  const ULongs a1 = a >> 32, b1 = b >> 32;
  const ULongs middle = multiply_low(a1, b) + (multiply_low(a, b) >> 32);
  const ULongs carry = multiply_low(a, b1) + (middle & 0xFFFFFFFFu);
  return multiply_low(a1, b1) + (middle >> 32) + (carry >> 32);
}

// Philox4x32-10 on one counter a 64-bit lane. The low halves of w are the words, the high halves rubbish.
struct WordLanes {
  ULongs w[4];

  // The `half`-th (0 or 1) 64-bit word.
  FG_HD ULongs word64(int half) const { return w[2 * half + 1] << 32 | (w[2 * half] & 0xFFFFFFFFu); }
};
FG_HD WordLanes philox_lanes(ULongs k0, ULongs k1, ULongs c0, ULongs c1, ULongs c2, ULongs c3) {
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const ULongs p0 = multiply_low(c0, 0xD2511F53u);
    const ULongs p1 = multiply_low(c2, 0xCD9E8D57u);
    c0 = (p1 >> 32) ^ c1 ^ k0;
    c2 = (p0 >> 32) ^ c3 ^ k1;
    c1 = p1;
    c3 = p0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}
// The same with one key a lane, or one for all.
FG_HD WordLanes philox_lanes(ULongs key, ULongs c0, ULongs c1, ULongs c2, ULongs c3) {
  return philox_lanes(key & 0xFFFFFFFFu, key >> 32, c0, c1, c2, c3);
}
FG_HD WordLanes philox_lanes(std::uint64_t key, ULongs c0, ULongs c1, ULongs c2, ULongs c3) {
  return philox_lanes(ulongs(key & 0xFFFFFFFFu), ulongs(key >> 32), c0, c1, c2, c3);
}

// Two registers of doubles rounded to one of floats, in pairs: 0 1 of the first, 0 1 of the second, 2 3 of
// the first, and so on; to_high_halves undoes the order, one instruction a register. (gcc 12 splits
// conversions of whole vectors into halves, hence intrinsics.)
FG_HD Doubles to_doubles(HalfFloats x) {
#if defined(FG_LEVEL_avx512)
  return _mm512_maskz_cvtps_pd(0xFF, x);
#elif defined(FG_LEVEL_avx2)
  return _mm256_cvtps_pd(x);
#else
  return __builtin_convertvector(x, Doubles);
#endif
}
FG_HD Floats to_floats_in_pairs(Doubles a, Doubles b) {
  return __builtin_shufflevector(__builtin_convertvector(a, HalfFloats),
                                 __builtin_convertvector(b, HalfFloats), FG_PAIRS);
}
struct LongPair {
  ULongs first, second;
};
FG_HD LongPair to_high_halves(Ints m) {
#if defined(FG_LEVEL_avx512)
  const __m512i zero = _mm512_setzero_si512();
  return {(ULongs)_mm512_maskz_unpacklo_epi32(0xFFFF, zero, (__m512i)m),
          (ULongs)_mm512_maskz_unpackhi_epi32(0xFFFF, zero, (__m512i)m)};
#elif defined(FG_LEVEL_avx2)
  const __m256i zero = _mm256_setzero_si256();
  return {(ULongs)_mm256_unpacklo_epi32(zero, (__m256i)m), (ULongs)_mm256_unpackhi_epi32(zero, (__m256i)m)};
#else
  const Ints zero = {};
  return {(ULongs)__builtin_shufflevector(zero, m, 0, 4, 1, 5),
          (ULongs)__builtin_shufflevector(zero, m, 2, 6, 3, 7)};
#endif
}
// Each lane shifted right by its own count, zero for 64 or more (which the language leaves open).
FG_HD Longs shift_right(ULongs x, ULongs count) {
#if defined(FG_LEVEL_avx512)
  return (Longs)_mm512_maskz_srlv_epi64(0xFF, (__m512i)x, (__m512i)count);
#elif defined(FG_LEVEL_avx2)
  return (Longs)_mm256_srlv_epi64((__m256i)x, (__m256i)count);
#elif defined(__x86_64__)
  const __m128i low = _mm_srl_epi64((__m128i)x, (__m128i)count);
  const __m128i high = _mm_srl_epi64((__m128i)x, _mm_unpackhi_epi64((__m128i)count, (__m128i)count));
  return (Longs)_mm_shuffle_pd(_mm_castsi128_pd(low), _mm_castsi128_pd(high), 2);
#else
  return (Longs)(count < 64u ? x >> (count & 63u) : ULongs{});
#endif
}

constexpr std::int64_t kRoundBits = 0x4338000000000000;

// An exponent as `weigh` takes it, for all lanes or one a lane (block_exponent of csrc/core/exp.h).
FG_HD LongPair weigh_exponent(std::int32_t e) {
  const ULongs all = ulongs(static_cast<std::uint64_t>(e + kRoundBits + 6));
  return {all, all};
}
FG_HD ULongs weigh_exponent(Doubles max) {
  const Doubles t = max * kLog2E;
  const Doubles nearest = (t + kRound) - kRound;
  const Doubles up = nearest + (Doubles)((ULongs)(nearest < t) & (ULongs)doubles(1.0));
  return (ULongs)(up + kRound) + (1 + 6);
}
FG_HD LongPair weigh_exponents(Floats max) {
  float each[kLanes];
  store(each, max);
  return {weigh_exponent(to_doubles(load<HalfFloats>(each))),
          weigh_exponent(to_doubles(load<HalfFloats>(each + kWideLanes)))};
}

// scaled_weight(y[i], e) of csrc/core/exp.h for `Registers` registers of floats, none of them NaN or above
// the maximum that gave e, and none in (-inf, -1e9) unless that maximum is above -1e9 + 64. The same bits:
// - t is rounded to an integer by adding 1.5 * 2^52, whose low bits are then that integer;
// - the polynomial is scaled by 2^24 throughout, which is exact;
// - far below the maximum, and at -inf (where the polynomial is NaN), the shift exceeds every bit: zero.
// Stage by stage over the registers: one chain is 80 cycles long, and a scheduler that must hold all of it
// sees too few others.
template <int Registers>
FG_HD void weigh(const float* y, const LongPair (&e)[Registers], Longs (&low)[Registers],
                 Longs (&high)[Registers]) {
  constexpr float kCoefficients[] = {0x1.5f0a66p+14f, 0x1.3b30b0p+17f, 0x1.c6af78p+19f,
                                     0x1.ebfbd8p+21f, 0x1.62e430p+23f, 0x1p+24f};
  Doubles t[2 * Registers], k[2 * Registers];
  Floats f[Registers], p[Registers];
#pragma GCC unroll 8
  for (int i = 0; i < 2 * Registers; ++i)
    t[i] = to_doubles(load<HalfFloats>(y + i * kWideLanes)) * kLog2E;
#pragma GCC unroll 8
  for (int i = 0; i < 2 * Registers; ++i)
    k[i] = t[i] + kRound;
#pragma GCC unroll 8
  for (int i = 0; i < 2 * Registers; ++i)
    t[i] = t[i] - (k[i] - kRound);
#pragma GCC unroll 4
  for (int i = 0; i < Registers; ++i) {
    f[i] = to_floats_in_pairs(t[2 * i], t[2 * i + 1]);
    p[i] = floats(0x1.3f906cp+11f);
  }
#pragma GCC unroll 6
  for (int c = 0; c < 6; ++c) {
#pragma GCC unroll 4
    for (int i = 0; i < Registers; ++i)
      p[i] = p[i] * f[i] + kCoefficients[c];
  }
  // The 24-bit mantissa stands at bit 32, and is wanted at bit 26, less what is dropped.
#pragma GCC unroll 4
  for (int i = 0; i < Registers; ++i) {
    const LongPair m = to_high_halves(__builtin_convertvector(p[i], Ints));
    low[i] = shift_right(m.first, e[i].first - (ULongs)k[2 * i]);
    high[i] = shift_right(m.second, e[i].second - (ULongs)k[2 * i + 1]);
  }
}

} // namespace fg::FG_LEVEL
