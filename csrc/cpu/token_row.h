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

  FG_HD std::int64_t sum(std::int32_t e) const {
    Longs a = {}, b = {};
    for (int i = 0; i < padded; i += kLanes) {
      const Weights w = weigh(y + i, e);
      a += w.low;
      b += w.high;
    }
    return total(a + b);
  }

  FG_HD std::int64_t weigh_all(std::int32_t e, std::int64_t* weights) const {
    Longs a = {};
    for (int i = 0; i < padded; i += kLanes) {
      const Weights w = weigh(y + i, e);
      store(weights + i, w.low);
      store(weights + i + kWideLanes, w.high);
      a += w.low + w.high;
    }
    return total(a);
  }

  // Lowest index of the maximum.
  FG_HD int first_max() const {
    int i = 0;
    while (y[i] != max)
      ++i;
    return i;
  }

private:
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

// A row of one block (V <= 512): weighed once, then one walk a draw.
class NarrowRow {
public:
  template <typename Logit>
  FG_HD Code read(const Logit* x, const float* bias, float scale, std::int64_t vocab) {
    block_.read(x, bias, scale, static_cast<int>(vocab));
    if (block_.invalid)
      return Code::invalid_value;
    if (block_.forbidden())
      return Code::degenerate;
    total_ = block_.weigh_all(block_exponent(block_.max), weights_);
    return Code::ok;
  }
  template <typename Logit>
  FG_HD std::int64_t draw(const Logit*, const float*, float, std::int64_t, std::uint64_t word) const {
    const std::int64_t target = static_cast<std::int64_t>(mulhi64(word, static_cast<std::uint64_t>(total_)));
    return first_reaching(weights_, target + 1);
  }

private:
  Block block_;
  alignas(64) std::int64_t weights_[kTokenBlock];
  std::int64_t total_;
};

// A row of many blocks: one pass for the shares, then each draw weighs its own block again, from memory that
// a draw from the same block has just read.
class WideRow {
public:
  // `shares` and `exponents` have one entry a block.
  FG_HD WideRow(std::int64_t* shares, std::int32_t* exponents) : shares_(shares), exponents_(exponents) {}

  template <typename Logit>
  FG_HD Code read(const Logit* x, const float* bias, float scale, std::int64_t vocab) {
    constexpr std::int32_t kNone = INT32_MIN;
    blocks_ = (vocab + kTokenBlock - 1) / kTokenBlock;
    weighed_ = -1;
    top_ = kNone;
    bool invalid = false;
    for (std::int64_t b = 0; b < blocks_; ++b) {
      read_block(x, bias, scale, vocab, b);
      invalid |= block_.invalid;
      if (block_.invalid || block_.forbidden()) {
        shares_[b] = 0;
        exponents_[b] = kNone;
        continue;
      }
      exponents_[b] = block_exponent(block_.max);
      shares_[b] = block_.sum(exponents_[b]);
      top_ = exponents_[b] > top_ ? exponents_[b] : top_;
    }
    if (invalid)
      return Code::invalid_value;
    if (top_ == kNone)
      return Code::degenerate;
    headroom_ = token_headroom(vocab);
    total_ = 0;
    for (std::int64_t b = 0; b < blocks_; ++b) {
      shares_[b] = shift(shares_[b], -token_shift(exponents_[b], top_, headroom_));
      total_ += shares_[b];
    }
    return Code::ok;
  }

  template <typename Logit>
  FG_HD std::int64_t draw(const Logit* x, const float* bias, float scale, std::int64_t vocab,
                          std::uint64_t word) {
    std::int64_t rest = static_cast<std::int64_t>(mulhi64(word, static_cast<std::uint64_t>(total_)));
    std::int64_t b = 0;
    while (rest >= shares_[b])
      rest -= shares_[b++];
    if (b != weighed_) {
      read_block(x, bias, scale, vocab, b);
      block_.weigh_all(exponents_[b], weights_);
      weighed_ = b;
    }
    const std::int64_t drop = token_shift(exponents_[b], top_, headroom_);
    return b * kTokenBlock + first_reaching(weights_, token_prefix_needed(rest, drop));
  }

private:
  template <typename Logit>
  FG_HD void read_block(const Logit* x, const float* bias, float scale, std::int64_t vocab, std::int64_t b) {
    const std::int64_t from = b * kTokenBlock;
    const std::int64_t n = vocab - from < kTokenBlock ? vocab - from : kTokenBlock;
    block_.read(x + from, bias ? bias + from : nullptr, scale, static_cast<int>(n));
  }

  Block block_;
  alignas(64) std::int64_t weights_[kTokenBlock];
  std::int64_t* shares_;
  std::int32_t* exponents_;
  std::int64_t blocks_ = 0, total_ = 0, weighed_ = -1;
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
