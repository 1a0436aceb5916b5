// Arithmetic of selection, shared by the kernels of every device: how blocks of integer weights come to one
// scale, and what is read off the total.
//
// fastguide/reference/select.py states the rules.
#pragma once

#include <cstdint>

#include "core/annotations.h"
#include "core/exp.h"
#include "core/integer.h"
#include "core/log.h"
#include "core/philox.h"

namespace fg {

enum class Rule : int { systematic = 0, stratified, multinomial, residual, argmax, topk, gumbel_topk };

constexpr std::int64_t kBlock = 4096; // part of the contract: another size would give other ancestors
constexpr std::int64_t kTotalLimit = std::int64_t{1} << 62;
constexpr int kSquareDrop = 24;     // bits dropped before squaring, so that 4,096 squares fit 62 bits
constexpr int kLargestScale = 14;   // one weight of 2^48 already fills 2^62
constexpr int kSmallestScale = -20; // 2^19 blocks of 2^61

// The integer weights of one block of log-weights, at the block's own exponent.
struct BlockWeight {
  std::int32_t exponent = 0; // meaningless where sum is 0
  std::int64_t sum = 0;      // below 2^62
  std::int64_t squares = 0;  // of the weights without their last kSquareDrop bits; at most 2^62
};

// A row of blocks at one scale: weights in units of 2^(exponent - 50 - scale).
struct Fold {
  std::int64_t exponent = 0;
  int scale = 0;
  std::int64_t total = 0; // 0: every weight of the row is zero
  int square_drop = 0;
  std::int64_t squares = 0;
};

FG_HD std::int64_t block_shift(const Fold& fold, const BlockWeight& block) {
  return fold.scale - (fold.exponent - block.exponent);
}

// Adds shift(x, by) to a total that must not pass `limit`; false where it would.
FG_HD bool add_shifted(std::int64_t x, std::int64_t by, std::int64_t limit, std::int64_t& total) {
  if (by > 0 && x > limit >> by)
    return false;
  const std::int64_t term = shift(x, by);
  if (term > limit - total)
    return false;
  total += term;
  return true;
}

// `blocks` points to the first BlockWeight; consecutive ones lie `stride` bytes apart.
FG_HD const BlockWeight& block_at(const BlockWeight* blocks, std::int64_t i, std::int64_t stride) {
  return *reinterpret_cast<const BlockWeight*>(reinterpret_cast<const char*>(blocks) + i * stride);
}

// Most candidates overflow after a few blocks, so the whole costs little more than two sums.
FG_HD Fold fold_blocks(const BlockWeight* blocks, std::int64_t n, std::int64_t stride) {
  Fold fold;
  bool any = false;
  for (std::int64_t i = 0; i < n; ++i) {
    const BlockWeight& b = block_at(blocks, i, stride);
    if (b.sum > 0 && (!any || b.exponent > fold.exponent)) {
      fold.exponent = b.exponent;
      any = true;
    }
  }
  if (!any)
    return fold;
  for (fold.scale = kLargestScale; fold.scale >= kSmallestScale; --fold.scale) {
    fold.total = 0;
    bool fits = true;
    for (std::int64_t i = 0; i < n && fits; ++i) {
      const BlockWeight& b = block_at(blocks, i, stride);
      fits = b.sum == 0 || add_shifted(b.sum, block_shift(fold, b), kTotalLimit - n, fold.total);
    }
    if (fits)
      break;
  }
  for (fold.square_drop = 0; fold.square_drop < -kSmallestScale; ++fold.square_drop) {
    fold.squares = 0;
    bool fits = true;
    for (std::int64_t i = 0; i < n && fits; ++i) {
      const BlockWeight& b = block_at(blocks, i, stride);
      fits = b.sum == 0 || add_shifted(b.squares, -fold.square_drop - 2 * (fold.exponent - b.exponent),
                                       kTotalLimit, fold.squares);
    }
    if (fits)
      break;
  }
  return fold;
}

// log of the mean of `m` weights.
FG_HD double log_mean_weight(const Fold& fold, std::int64_t m) {
  const double mean = static_cast<double>(fold.total) / static_cast<double>(m);
  const std::int64_t k = binary_exponent(mean);
  return static_cast<double>(fold.exponent - kWeightBits - fold.scale + k) * kLn2 +
         log_mantissa(binary_mantissa(mean, k));
}

// (sum of w)^2 / (sum of w^2) in [1, m]; a ratio within rounding of m is m.
FG_HD double effective_sample_size(const Fold& fold, std::int64_t m) {
  const double t = static_cast<double>(fold.total), most = static_cast<double>(m);
  const double ratio = t * t / static_cast<double>(fold.squares > 1 ? fold.squares : 1) *
                       power_of_two(-2 * fold.scale - fold.square_drop - 2 * kSquareDrop);
  if (ratio >= most * (1.0 - 0x1p-48))
    return most;
  return ratio > 1.0 ? ratio : 1.0;
}

// Division of x in [0, 2^63) by an invariant q with x / q < 2^31. The reciprocal is rounded down by far more
// than its errors, so that the quotient is right or one too small.
struct Divider {
  std::int64_t q;
  double reciprocal;
};

FG_HD Divider make_divider(std::int64_t q) {
  return {q, 1.0 / static_cast<double>(q) * (1.0 - 0x1p-50)};
}

FG_HD std::int64_t divide(std::int64_t x, const Divider& d) {
  const std::int64_t a = static_cast<std::int32_t>(static_cast<double>(x) * d.reciprocal);
  return a + (x - a * d.q >= d.q);
}

FG_HD std::uint64_t select_word(std::uint64_t seed, std::int64_t i, std::int64_t parent, std::int64_t step) {
  return philox(seed, static_cast<std::uint32_t>(i >> 1), static_cast<std::uint32_t>(parent), 0,
                counter_word(step, Stream::select))
      .word64(static_cast<int>(i & 1));
}

// Standard Gumbel noise of a 64-bit word; its top 52 bits give a uniform strictly inside (0, 1).
FG_HD double gumbel(std::uint64_t word) {
  const double uniform = (static_cast<double>(static_cast<std::int64_t>(word >> 12)) + 0.5) * 0x1p-52;
  return -log_fixed(-log_fixed(uniform));
}

// Order-preserving map from scores (no NaN) to unsigned integers, never 0; -0 and +0 map to the same.
FG_HD std::uint64_t sort_key(double score) {
  const std::uint64_t bits = static_cast<std::uint64_t>(bits_of(score + 0.0));
  return bits >> 63 ? ~bits : bits | std::uint64_t{1} << 63;
}
FG_HD double score_of(std::uint64_t key) {
  return double_of(static_cast<std::int64_t>(key >> 63 ? key & ~(std::uint64_t{1} << 63) : ~key));
}

} // namespace fg
