// Registers of normals from registers of counters: csrc/core/philox.h and csrc/core/normal.h, lane by lane.
//
// 145 instructions make two registers of normals, but one after the other: the chain through ten rounds, a
// logarithm and a root is some 160 cycles long, and a scheduler that must hold all of it sees too few others.
// So several registers go through every operation side by side.
#pragma once

#include <cstdint>

#include "core/normal.h"
#include "cpu/intrinsics.h"
#include "cpu/lanes.h"

namespace fg::FG_LEVEL {

constexpr int kAbreast = kLanes >= 16 ? 4 : 2; // registers of counters; what the register file holds
constexpr int kNormals = 4 * kWideLanes;       // that one register of counters makes

// Registers on which arithmetic is done side by side.
struct Abreast {
  Floats v[kAbreast];
};
FG_HD Abreast operator*(Abreast x, const Abreast& y) {
#pragma GCC unroll 4
  for (int i = 0; i < kAbreast; ++i)
    x.v[i] = x.v[i] * y.v[i];
  return x;
}
FG_HD Abreast operator*(Abreast x, float y) {
#pragma GCC unroll 4
  for (int i = 0; i < kAbreast; ++i)
    x.v[i] = x.v[i] * y;
  return x;
}
FG_HD Abreast operator+(Abreast x, const Abreast& y) {
#pragma GCC unroll 4
  for (int i = 0; i < kAbreast; ++i)
    x.v[i] = x.v[i] + y.v[i];
  return x;
}
FG_HD Abreast operator+(Abreast x, float y) {
#pragma GCC unroll 4
  for (int i = 0; i < kAbreast; ++i)
    x.v[i] = x.v[i] + y;
  return x;
}

// Correctly rounded.
FG_HD Floats square_root(Floats v) {
#if defined(FG_LEVEL_avx512)
  return (Floats)_mm512_maskz_sqrt_ps(0xFFFF, (__m512)v);
#elif defined(FG_LEVEL_avx2)
  return _mm256_sqrt_ps(v);
#elif defined(__x86_64__)
  return _mm_sqrt_ps(v);
#else
  for (int i = 0; i < kLanes; ++i)
    v[i] = __builtin_sqrtf(v[i]);
  return v;
#endif
}

// Lanes 2i and 2i + 1: the low halves of lane i of x and of y.
FG_HD UInts join(ULongs x, ULongs y) {
#if defined(FG_LEVEL_avx512)
  constexpr auto kLow = static_cast<_MM_PERM_ENUM>(0xA0);
  return (UInts)_mm512_mask_shuffle_epi32((__m512i)x, 0xAAAA, (__m512i)y, kLow);
#else
  return (UInts)((x & 0xFFFFFFFFu) | y << 32);
#endif
}

// Writes x and y with their lanes in turn.
FG_HD void store_in_turn(float* to, Floats x, Floats y) {
#if defined(FG_LEVEL_avx512)
  store(to, __builtin_shufflevector(x, y, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
  store(to + kLanes,
        __builtin_shufflevector(x, y, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
#elif defined(FG_LEVEL_avx2)
  store(to, __builtin_shufflevector(x, y, 0, 8, 1, 9, 2, 10, 3, 11));
  store(to + kLanes, __builtin_shufflevector(x, y, 4, 12, 5, 13, 6, 14, 7, 15));
#else
  store(to, __builtin_shufflevector(x, y, 0, 4, 1, 5));
  store(to + kLanes, __builtin_shufflevector(x, y, 2, 6, 3, 7));
#endif
}

// The four normals of each of the counters (0, slot, position, last), in the order of the counters.
struct Counters {
  ULongs slots[kAbreast], positions[kAbreast];
};
FG_HD void make_normals(std::uint64_t key, const Counters& counters, std::uint32_t last, float* to) {
  constexpr int n = kAbreast;
  ULongs c0[n], c1[n], c2[n], c3[n];
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) {
    c0[i] = ULongs{};
    c1[i] = counters.slots[i];
    c2[i] = counters.positions[i];
    c3[i] = ulongs(last);
  }
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
    ULongs p0[n], p1[n];
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) {
      p0[i] = multiply_low(c0[i], 0xD2511F53u);
      p1[i] = multiply_low(c2[i], 0xCD9E8D57u);
    }
#pragma GCC unroll 4
    for (int i = 0; i < n; ++i) {
      c0[i] = (p1[i] >> 32) ^ c1[i] ^ ulongs(k0);
      c2[i] = (p0[i] >> 32) ^ c3[i] ^ ulongs(k1);
      c1[i] = p1[i];
      c3[i] = p0[i];
    }
  }

  UInts b[n];
  Abreast t, f, w;
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) {
    const UInts a = join(c0[i], c2[i]);
    b[i] = join(c1[i], c3[i]);
    const Floats low = (Floats)((b[i] & 0xFFu) | 0x4B000000u) - (0x1p23f - 0.5f); // the low bits plus 1/2
    const Ints bits = (Ints)(__builtin_convertvector((Ints)(a >> 1), Floats) * 256.0f + low);
    const Ints k = (bits - kSqrtHalfBits) >> 23;
    f.v[i] = (Floats)(bits - (k << 23)) - 1.0f;
    t.v[i] = __builtin_convertvector(kRadiusBits - k, Floats);
  }
  Abreast r = minus_two_log(t, f);
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) {
    r.v[i] = square_root(r.v[i]);
    // 22 bits of b behind the sign and exponent of 1, and a last bit that centres the grid.
    w.v[i] = (Floats)((b[i] >> 7 & 0x7FFFFEu) | 0x3F800001u) - 1.5f;
  }
  const Abreast square = w * w;
  const Abreast sine = quarter_sine(w, square), cosine = quarter_cosine(square);
#pragma GCC unroll 4
  for (int i = 0; i < n; ++i) {
    const Floats c = (Floats)((UInts)cosine.v[i] ^ (b[i] & 0x80000000u));
    const Ints swapped = (b[i] & 0x40000000u) != 0u;
    store_in_turn(to + i * kNormals, r.v[i] * (swapped ? sine.v[i] : c), r.v[i] * (swapped ? c : sine.v[i]));
  }
}

} // namespace fg::FG_LEVEL
