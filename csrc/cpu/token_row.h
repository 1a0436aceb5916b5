// One row of logits: its maximum, its integer weights, a draw from it. Compiled once a SIMD level.
#pragma once

#include <cstdint>

#include "core/categorical.h"
#include "cpu/lanes.h"
#include "cpu/masked.h"

namespace fg::FG_LEVEL {

constexpr float kForbidden = -__builtin_inff();

struct Half {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
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

// What a block of logits becomes before it is weighed: y = (logit + bias) / temperature in float32, padded
// with -inf to whole registers.
struct Block {
  alignas(64) float y[kTokenBlock];
  int padded;   // entries of y
  float max;    // of y
  bool invalid; // some y is NaN, +inf or above 1e9

  bool forbidden() const { return !(max >= static_cast<float>(-kMaxLogWeight)); }

  template <typename Logit> FG_HD void read(const Logit* x, const float* bias, float scale, int n) {
    constexpr float kMost = static_cast<float>(kMaxLogWeight);
    Floats most = floats(kForbidden);
    Ints wrong = {};
    int i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      Floats v = load_logits(x + i);
      if (bias)
        v = v + load<Floats>(bias + i);
      v = v * scale;
      wrong |= ~(v <= floats(kMost));
      most = v > most ? v : most;
      store(y + i, v);
    }
    if (i < n) {
      Floats v = load_first(x + i, n - i);
      if (bias)
        v = v + load_first(bias + i, n - i);
      v = v * scale;
      v = lane_numbers() < n - i ? v : floats(kForbidden);
      wrong |= ~(v <= floats(kMost));
      most = v > most ? v : most;
      store(y + i, v);
      i += kLanes;
    }
    padded = i;
    max = largest(most);
    invalid = any(wrong);
    // Elsewhere a y below -1e9 is too far below the maximum to weigh anything.
    if (max < static_cast<float>(64.0 - kMaxLogWeight)) {
      for (int k = 0; k < padded; ++k)
        y[k] = y[k] >= static_cast<float>(-kMaxLogWeight) ? y[k] : kForbidden;
    }
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
  static constexpr int kTogether = kLanes >= 16 ? 4 : 2; // registers; what the register file holds

  template <int Registers, bool Keep>
  static FG_HD Longs weigh_some(const float* from, std::int32_t e, std::int64_t* weights) {
    Longs low[Registers], high[Registers], sums = {};
    std::int32_t exponents[Registers];
    for (int i = 0; i < Registers; ++i)
      exponents[i] = e;
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

  static FG_HD bool any(Ints v) {
    std::int32_t bits = 0;
    for (int i = 0; i < kLanes; ++i)
      bits |= v[i];
    return bits != 0;
  }
};

// The first index whose inclusive prefix is at least `needed`, which is at most the sum of the weights.
FG_HD int first_reaching(const std::int64_t* weights, std::int64_t needed) {
  int i = 0;
  for (;; i += kLanes) {
    const std::int64_t sum = total(load<Longs>(weights + i) + load<Longs>(weights + i + kWideLanes));
    if (sum >= needed)
      break;
    needed -= sum;
  }
  while (weights[i] < needed)
    needed -= weights[i++];
  return i;
}

// Rows are read `kRows` at a time and then drawn from, each by its number.

// A row of one block (V <= 512): weighed once, then one walk a draw.
class NarrowRow {
public:
  static constexpr int kRows = 1;

  template <typename Logit>
  FG_HD void read(const Logit* const* x, const float* const* bias, float scale, std::int64_t vocab,
                  Code* code) {
    block_.read(*x, *bias, scale, static_cast<int>(vocab));
    *code = block_.invalid ? Code::invalid_value : block_.forbidden() ? Code::degenerate : Code::ok;
    if (*code == Code::ok)
      total_ = block_.weigh_all<true>(block_exponent(block_.max), weights_);
  }
  FG_HD std::int64_t draw(int, std::uint64_t word) const {
    const std::int64_t target = static_cast<std::int64_t>(mulhi64(word, static_cast<std::uint64_t>(total_)));
    return first_reaching(weights_, target + 1);
  }

private:
  Block block_;
  alignas(64) std::int64_t weights_[kTokenBlock];
  std::int64_t total_ = 0;
};

#if defined(FG_LEVEL_avx512)
// Rows of at most 32 tokens, each in two registers of logits and four of prefixes, without a loop or a
// branch. One row is a chain of some 200 cycles; two are read side by side to fill the waits.
class SmallRows {
public:
  static constexpr int kRows = 2;
  static constexpr std::int64_t kMostTokens = 2 * kLanes;

  template <typename Logit>
  FG_HD void read(const Logit* const* x, const float* const* bias, float scale, std::int64_t vocab,
                  Code* codes) {
    const int n = static_cast<int>(vocab), first = n < kLanes ? n : kLanes;
    const Floats least = floats(static_cast<float>(-kMaxLogWeight));
    const __m512 most = _mm512_set1_ps(static_cast<float>(kMaxLogWeight));
    alignas(64) float y[kRows * 2 * kLanes];
    std::int32_t exponents[kRows * 2];
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
      Floats a = load_first(x[r], first), b = load_first(x[r] + first, n - first);
      if (bias[r]) {
        a = a + load_first(bias[r], first);
        b = b + load_first(bias[r] + first, n - first);
      }
      a = lane_numbers() < n ? a * scale : floats(kForbidden);
      b = lane_numbers() < n - kLanes ? b * scale : floats(kForbidden);
      const bool valid =
          (_mm512_cmp_ps_mask(a, most, _CMP_NLE_UQ) | _mm512_cmp_ps_mask(b, most, _CMP_NLE_UQ)) == 0;
      a = a >= least ? a : floats(kForbidden);
      b = b >= least ? b : floats(kForbidden);
      const float max = largest(a > b ? a : b);
      codes[r] = !valid ? Code::invalid_value : max == kForbidden ? Code::degenerate : Code::ok;
      exponents[2 * r] = exponents[2 * r + 1] = block_exponent(codes[r] == Code::ok ? max : 0.0f);
      store(y + 2 * r * kLanes, a);
      store(y + (2 * r + 1) * kLanes, b);
    }
    Longs low[kRows * 2], high[kRows * 2];
    weigh(y, exponents, low, high);
    __m512i sums[4 * kRows];
#pragma GCC unroll 8
    for (int i = 0; i < 4 * kRows; ++i) {
      __m512i sum = (__m512i)(i % 2 ? high[i / 2] : low[i / 2]);
      sum = _mm512_add_epi64(sum, _mm512_maskz_alignr_epi64(0xFE, sum, sum, 7));
      sum = _mm512_add_epi64(sum, _mm512_maskz_alignr_epi64(0xFC, sum, sum, 6));
      sums[i] = _mm512_add_epi64(sum, _mm512_maskz_alignr_epi64(0xF0, sum, sum, 4));
    }
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
      __m512i before = _mm512_setzero_si512();
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const __m512i sum = sums[4 * r + i];
        prefix_[4 * r + i] = (ULongs)_mm512_add_epi64(sum, before);
        before = _mm512_add_epi64(before, _mm512_maskz_permutexvar_epi64(0xFF, _mm512_set1_epi64(7), sum));
      }
      total_[r] = ((ULongs)before)[0];
    }
  }
  FG_HD std::int64_t draw(int r, std::uint64_t word) const {
    const __m512i target = _mm512_set1_epi64(static_cast<long long>(mulhi64(word, total_[r])));
    std::uint32_t below = 0;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i)
      below |= static_cast<std::uint32_t>(_mm512_cmple_epu64_mask((__m512i)prefix_[4 * r + i], target))
               << (8 * i);
    return __builtin_popcount(below);
  }

private:
  ULongs prefix_[4 * kRows] = {};
  std::uint64_t total_[kRows] = {};
};
#endif

// A row of many blocks: one pass for the shares, then each draw weighs its own block again, from memory that
// a draw from the same block has just read.
template <typename Logit> class WideRow {
public:
  static constexpr int kRows = 1;

  // `shares` and `exponents` have one entry a block.
  FG_HD WideRow(std::int64_t* shares, std::int32_t* exponents) : shares_(shares), exponents_(exponents) {}

  FG_HD void read(const Logit* const* x, const float* const* bias, float scale, std::int64_t vocab,
                  Code* code) {
    constexpr std::int32_t kNone = INT32_MIN;
    x_ = *x;
    bias_ = *bias;
    scale_ = scale;
    vocab_ = vocab;
    weighed_ = -1;
    top_ = kNone;
    const std::int64_t blocks = (vocab + kTokenBlock - 1) / kTokenBlock;
    bool invalid = false;
    for (std::int64_t b = 0; b < blocks; ++b) {
      read_block(b);
      invalid |= block_.invalid;
      if (block_.invalid || block_.forbidden()) {
        shares_[b] = 0;
        exponents_[b] = kNone;
        continue;
      }
      exponents_[b] = block_exponent(block_.max);
      shares_[b] = block_.weigh_all<false>(exponents_[b], weights_);
      top_ = exponents_[b] > top_ ? exponents_[b] : top_;
    }
    *code = invalid ? Code::invalid_value : top_ == kNone ? Code::degenerate : Code::ok;
    headroom_ = token_headroom(vocab);
    total_ = 0;
    for (std::int64_t b = 0; b < blocks; ++b) {
      shares_[b] = shift(shares_[b], -token_shift(exponents_[b], top_, headroom_));
      total_ += shares_[b];
    }
  }

  FG_HD std::int64_t draw(int, std::uint64_t word) {
    std::int64_t rest = static_cast<std::int64_t>(mulhi64(word, static_cast<std::uint64_t>(total_)));
    std::int64_t b = 0;
    while (rest >= shares_[b])
      rest -= shares_[b++];
    if (b != weighed_) {
      read_block(b);
      block_.weigh_all<true>(exponents_[b], weights_);
      weighed_ = b;
    }
    const std::int64_t drop = token_shift(exponents_[b], top_, headroom_);
    return b * kTokenBlock + first_reaching(weights_, token_prefix_needed(rest, drop));
  }

private:
  FG_HD void read_block(std::int64_t b) {
    const std::int64_t from = b * kTokenBlock;
    const std::int64_t n = vocab_ - from < kTokenBlock ? vocab_ - from : kTokenBlock;
    block_.read(x_ + from, bias_ ? bias_ + from : nullptr, scale_, static_cast<int>(n));
  }

  Block block_;
  alignas(64) std::int64_t weights_[kTokenBlock];
  std::int64_t* shares_;
  std::int32_t* exponents_;
  const Logit* x_ = nullptr;
  const float* bias_ = nullptr;
  float scale_ = 1;
  std::int64_t vocab_ = 0, total_ = 0, weighed_ = -1;
  std::int32_t top_ = 0;
  int headroom_ = 0;
};

// The lowest index of the largest logit + bias of a row of any width.
template <typename Logit>
FG_HD Code largest_token(const Logit* x, const float* bias, std::int64_t vocab, std::int64_t& token) {
  Block block;
  float most = kForbidden;
  bool invalid = false;
  for (std::int64_t from = 0; from < vocab; from += kTokenBlock) {
    const std::int64_t n = vocab - from < kTokenBlock ? vocab - from : kTokenBlock;
    block.read(x + from, bias ? bias + from : nullptr, 1.0f, static_cast<int>(n));
    invalid |= block.invalid;
    if (block.max > most && !block.invalid && !block.forbidden()) {
      most = block.max;
      token = from + block.first_max();
    }
  }
  if (invalid)
    return Code::invalid_value;
  return most == kForbidden ? Code::degenerate : Code::ok;
}

} // namespace fg::FG_LEVEL
