// Draws of tokens by exact inverse CDF over integer weights.
//
// A row of V logits is cut into blocks of 512. Block b has the exponent e_b of its largest logit, and its
// weights w = floor(exp(y) * 2^(50 - e_b)) are at most 2^49, so that its sum is at most 2^58. Against the
// largest exponent E of the row, its share of the total is
//   share_b = sum_b >> (E - e_b + headroom),   headroom = max(0, ceil(log2(number of blocks)) - 4).
// Every share is at most 2^(58 - headroom), hence the total at most 2^(58 + 4) = 2^62: no overflow at any V,
// and bits are given up only beyond 16 blocks (V > 8,192). The block of exponent E has a weight of at least
// 2^48, so the total is positive whenever a token is allowed.
//
// A uniform 64-bit word gives target = floor(word * total / 2^64) in [0, total). The block whose inclusive
// running share first exceeds the target is chosen, and in it the first token whose inclusive prefix,
// shifted as the block was, exceeds target - (shares before). A token of weight zero does not raise the
// prefix, so it is never the first.
#pragma once

#include <cstdint>

#include "core/annotations.h"
#include "core/exp.h"
#include "core/integer.h"

namespace fg {

constexpr int kTokenBlock = 512;

FG_HD int token_headroom(std::int64_t vocab) {
  const std::int64_t blocks = (vocab + kTokenBlock - 1) / kTokenBlock;
  int bits = 0;
  while ((std::int64_t{1} << bits) < blocks)
    ++bits;
  return bits > 4 ? bits - 4 : 0;
}

// By how much block sums of exponent e are shifted right in a row of largest exponent `top`.
FG_HD std::int64_t token_shift(std::int32_t e, std::int32_t top, int headroom) {
  return static_cast<std::int64_t>(top) - e + headroom;
}

// The least unshifted prefix whose shifted value exceeds `rest`. The block was chosen because its shifted
// sum, at most 2^58 >> drop, exceeds `rest`; so (rest + 1) << drop is at most 2^58.
FG_HD std::int64_t token_prefix_needed(std::int64_t rest, std::int64_t drop) {
  return shift(rest + 1, drop);
}

// top_p as a fraction of 2^64, p in (0, 1); rounded up, so no share is rounded to nothing.
FG_HD std::uint64_t share_word(double p) {
  return static_cast<std::uint64_t>(std::ceil(p * 0x1p64));
}

// ceil(total * share / 2^64): what the tokens kept must hold together.
FG_HD std::int64_t share_of_total(std::uint64_t share, std::int64_t total) {
  const std::uint64_t t = static_cast<std::uint64_t>(total);
  return static_cast<std::int64_t>(mulhi64(share, t) + (share * t != 0));
}

// The probability of a token of log-weight `max`, the largest of its row.
FG_HD double largest_share(float max, std::int32_t top, int headroom, std::int64_t total) {
  return static_cast<double>(scaled_weight(max, top + headroom)) / static_cast<double>(total);
}

// A position changes when its 32-bit word is below this: ceil(p * 2^32), so p = 0 is never, p = 1 always, and
// no positive p is rounded to never.
FG_HD std::uint64_t position_threshold(double probability) {
  return static_cast<std::uint64_t>(std::ceil(probability * 0x1p32));
}

} // namespace fg
