// Logits as they are read: any type as float32, a block of them scaled, cut and weighed. Compiled once a SIMD
// level.
#pragma once

#include <cstdint>

#include "core/categorical.h"
#include "cpu/lanes.h"

namespace fg::FG_LEVEL {

constexpr float kForbidden = -__builtin_inff();
constexpr float kAbove = __builtin_inff();                   // above every logit
constexpr float kLeast = static_cast<float>(-kMaxLogWeight); // below it a logit forbids
constexpr float kMost = static_cast<float>(kMaxLogWeight);   // above it a logit is refused

struct Half {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};

// What all rows of a call undergo.
struct RowSettings {
  float scale;
  std::int64_t vocab;
  std::int64_t top_k;  // 0: all
  std::uint64_t top_p; // share_word(p); 0: all

  bool truncates() const { return top_k != 0 || top_p != 0; }
};

template <typename Logit> struct RowData {
  const Logit* x;
  const float *bias, *shift; // or null
};

// One register of logits as float32, exactly.
FG_HD Floats load_logits(const float* x) {
  return load<Floats>(x);
}
FG_HD Floats load_logits(const BFloat16* x) {
  return (Floats)(__builtin_convertvector(load<Shorts>(x), UInts) << 16);
}
// Not by a multiplication of the shifted bits, which a caller's flush-to-zero mode would spoil for
// subnormals.
FG_HD Floats load_logits(const Half* x) {
  const UInts h = __builtin_convertvector(load<Shorts>(x), UInts);
  const UInts magnitude = h & 0x7FFFu;
  const UInts normal = (magnitude << 13) + (112u << 23);
  const UInts subnormal = (UInts)(__builtin_convertvector((Ints)magnitude, Floats) * 0x1p-24f);
  UInts bits = magnitude < 0x0400u ? subnormal : normal;
  bits = magnitude >= 0x7C00u ? normal + (112u << 23) : bits;
  return (Floats)(bits | (h & 0x8000u) << 16);
}

// The same for the first `count` logits; the other lanes hold zeros, and nothing beyond is read.
template <typename Logit> FG_HD Floats load_first(const Logit* x, int count) {
#if defined(FG_LEVEL_avx512)
  const __mmask16 wanted = static_cast<__mmask16>((1u << count) - 1);
  if constexpr (sizeof(Logit) == 4) {
    return (Floats)_mm512_maskz_loadu_ps(wanted, x);
  } else {
    alignas(32) Logit some[kLanes];
    _mm256_store_si256(reinterpret_cast<__m256i*>(some), _mm256_maskz_loadu_epi16(wanted, x));
    return load_logits(some);
  }
#else
  Logit some[kLanes] = {};
  __builtin_memcpy(some, x, sizeof(Logit) * static_cast<unsigned>(count));
  return load_logits(some);
#endif
}

// In which lanes a logit looked at must be refused: NaN, +inf or above 1e9.
class Refusals {
public:
#if defined(FG_LEVEL_avx512)
  // Not the reverse, "fine so far and fine here": a comparison under a mask waits for the one before.
  FG_HD void look(Floats v) { wrong_ |= _mm512_cmp_ps_mask(v, floats(kMost), _CMP_NLE_UQ); }
  // Refuses what is forbidden, too.
  FG_HD void look_least(Floats v) { wrong_ |= _mm512_cmp_ps_mask(v, floats(kLeast), _CMP_NGE_UQ); }
  // Bit i: lane i is refused.
  FG_HD std::uint32_t lanes() const { return wrong_; }

private:
  __mmask16 wrong_ = 0;
#else
  FG_HD void look(Floats v) { wrong_ |= ~(v <= floats(kMost)); }
  FG_HD void look_least(Floats v) { wrong_ |= ~(v >= floats(kLeast)); }
  FG_HD std::uint32_t lanes() const {
    std::uint32_t bits = 0;
    for (int i = 0; i < kLanes; ++i)
      bits |= static_cast<std::uint32_t>(wrong_[i] != 0) << i;
    return bits;
  }

private:
  Ints wrong_ = {};
#endif
};

// What a block of logits becomes before it is weighed: y = (logit + bias) / temperature in float32, padded
// with -inf to whole registers.
struct Block {
  alignas(64) float y[kTokenBlock];
  int padded;   // entries of y
  float max;    // of y
  bool invalid; // some y is NaN, +inf or above 1e9

  bool forbidden() const { return !(max >= kLeast); }

  // Returns the maximum of each lane. Fetches what lies `kAhead` logits further on, if not 0: without it the
  // weighing of a block and the arrival of the next would take turns.
  template <int kAhead = 0, typename Logit>
  FG_HD Floats read(const Logit* x, const float* bias, float scale, int n) {
    Floats most = floats(kForbidden);
    Refusals wrong;
    int i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      Floats v = load_logits(x + i);
      if (kAhead)
        __builtin_prefetch(x + i + kAhead);
      if (bias)
        v = v + load<Floats>(bias + i);
      v = v * scale;
      wrong.look(v);
      most = v > most ? v : most;
      store(y + i, v);
    }
    if (i < n) {
      Floats v = load_first(x + i, n - i);
      if (bias)
        v = v + load_first(bias + i, n - i);
      v = v * scale;
      v = lane_numbers() < n - i ? v : floats(kForbidden);
      wrong.look(v);
      most = v > most ? v : most;
      store(y + i, v);
      i += kLanes;
    }
    padded = i;
    finish(most, wrong);
    return most;
  }

  // Forbids what is below `least` (or below -1e9) and shifts the rest; `shift` may be null.
  FG_HD void cut(float least, const float* shift, int n) {
    const Floats bound = floats(least > kLeast ? least : kLeast);
    Floats most = floats(kForbidden);
    Refusals wrong;
    for (int i = 0; i < padded; i += kLanes) {
      const Floats v = load<Floats>(y + i);
      Floats shifted = v;
      if (shift)
        shifted = v + (n - i >= kLanes ? load<Floats>(shift + i) : load_first(shift + i, n - i));
      shifted = v >= bound ? shifted : floats(kForbidden);
      wrong.look(shifted);
      most = shifted > most ? shifted : most;
      store(y + i, shifted);
    }
    finish(most, wrong);
  }

  // The sum of the weights, and with a buffer the weights themselves.
  template <bool Keep> FG_HD std::int64_t weigh_all(std::int32_t e, std::int64_t* weights) const {
    Longs sums = {};
    int i = 0;
    for (; i + kTogether * kLanes <= padded; i += kTogether * kLanes)
      sums += weigh_some<kTogether, Keep>(y + i, e, weights + i);
    for (; i < padded; i += kLanes)
      sums += weigh_some<1, Keep>(y + i, e, weights + i);
    return total(sums);
  }

  // Lowest index of the maximum.
  FG_HD int first_max() const {
    int i = 0;
    std::uint32_t here = equal_lanes(load<Floats>(y), max);
    while (!here)
      here = equal_lanes(load<Floats>(y + (i += kLanes)), max);
    return i + __builtin_ctz(here);
  }

private:
  FG_HD void finish(Floats most, const Refusals& wrong) {
    max = largest(most);
    invalid = wrong.lanes() != 0;
    // Elsewhere a y below -1e9 is too far below the maximum to weigh anything.
    if (max < 64.0f + kLeast) {
      for (int k = 0; k < padded; ++k)
        y[k] = y[k] >= kLeast ? y[k] : kForbidden;
    }
  }

  static constexpr int kTogether = kLanes >= 16 ? 4 : 2; // registers; what the register file holds

  template <int Registers, bool Keep>
  static FG_HD Longs weigh_some(const float* from, std::int32_t e, std::int64_t* weights) {
    Longs low[Registers], high[Registers], sums = {};
    LongPair exponents[Registers];
    for (int i = 0; i < Registers; ++i)
      exponents[i] = weigh_exponent(e);
    weigh(from, exponents, low, high);
    for (int i = 0; i < Registers; ++i) {
      if constexpr (Keep) {
        store(weights + i * kLanes, low[i]);
        store(weights + i * kLanes + kWideLanes, high[i]);
      }
      sums += low[i] + high[i];
    }
    return sums;
  }
};

} // namespace fg::FG_LEVEL
