// Which positions of the children of a particle change: masks that are revealed, tokens that return to the
// mask. 64 positions a word, from Philox words alone (one call serves four positions, a register of lanes as
// many calls) or from the ranks of the positions.
#pragma once

#include <cstdint>

#include "core/philox.h"
#include "cpu/buffer.h"
#include "cpu/lanes.h"
#include "cpu/masked.h"
#include "cpu/open_positions.h"
#include "cpu/smallest.h"

namespace fg::FG_LEVEL {

// The words of kLanes * 2 positions, in order but for pairs: words 0 and 1 of each call in the first
// register, words 2 and 3 in the second.
struct PositionWords {
  UInts pairs[2];
};
FG_HD PositionWords position_words(std::uint64_t key, std::uint32_t slot, std::int64_t block,
                                   std::int64_t step) {
  const WordLanes words =
      philox_lanes(key, ulongs(0), ulongs(slot), wide_lane_numbers() + static_cast<std::uint64_t>(block),
                   ulongs(counter_word(step, Stream::positions)));
  return {{(UInts)(words.w[1] << 32 | (words.w[0] & 0xFFFFFFFFu)),
           (UInts)(words.w[3] << 32 | (words.w[2] & 0xFFFFFFFFu))}};
}

// Bit i: the word of position i is below the threshold.
FG_HD std::uint64_t below(const PositionWords& words, std::uint32_t threshold) {
#if defined(FG_LEVEL_avx512)
  const __m512i bound = _mm512_set1_epi32(static_cast<int>(threshold));
  return _pdep_u64(_mm512_cmplt_epu32_mask((__m512i)words.pairs[0], bound), 0x33333333u) |
         _pdep_u64(_mm512_cmplt_epu32_mask((__m512i)words.pairs[1], bound), 0xCCCCCCCCu);
#else
  std::uint64_t bits = 0;
  for (int half = 0; half < 2; ++half) {
    const Ints less = words.pairs[half] < threshold - UInts{};
#if defined(FG_LEVEL_avx2)
    const std::uint32_t lanes = static_cast<std::uint32_t>(_mm256_movemask_ps((Floats)less));
    bits |= _pdep_u64(lanes, half ? 0xCCCCu : 0x3333u);
#else
    for (int i = 0; i < kLanes; ++i)
      bits |= static_cast<std::uint64_t>(less[i] != 0) << (2 * half + 4 * (i / 2) + i % 2);
#endif
  }
  return bits;
#endif
}

// Bit i < n: the word of position 64 * chunk + i is below the first threshold, or the second. Others are any.
struct Below {
  std::uint64_t first, second;
};
template <bool Both>
FG_HD Below words_below(std::uint64_t key, std::uint32_t slot, std::int64_t chunk, int n, std::int64_t step,
                        std::uint32_t first, std::uint32_t second) {
  Below bits{};
#pragma GCC unroll 2
  for (int i = 0; i < n; i += 2 * kLanes) {
    const PositionWords words = position_words(key, slot, 16 * chunk + i / 4, step);
    bits.first |= below(words, first) << i;
    if (Both)
      bits.second |= below(words, second) << i;
  }
  return bits;
}

// Those of the positions `open` of a chunk whose word is below the threshold.
FG_HD std::uint64_t chosen(std::uint64_t open, std::uint64_t key, std::uint32_t slot, std::int64_t chunk,
                           std::int64_t step, std::uint64_t threshold) {
  if (threshold > 0xFFFFFFFFu || !open)
    return open;
  const int n = 64 - __builtin_clzll(open);
  return threshold
             ? open & words_below<false>(key, slot, chunk, n, step, static_cast<std::uint32_t>(threshold), 0)
                          .first
             : 0;
}

// The rank of a masked position in order of confidence: the likeliest has the smallest key, below
// 2^kConfidenceBits. The keys of rows that cannot be ranked hold their code instead.
constexpr int kConfidenceBits = 62;
constexpr std::uint64_t kUnranked = ~std::uint64_t{0};

FG_HD std::uint64_t confidence_key(double share) {
  std::uint64_t bits;
  __builtin_memcpy(&bits, &share, sizeof bits);
  return 0x3FF0000000000000u - bits;
}
FG_HD std::uint64_t refusal_key(Code code) {
  return (std::uint64_t{1} << kConfidenceBits) + static_cast<std::uint64_t>(code);
}
FG_HD bool is_refusal(std::uint64_t key) {
  return key >> kConfidenceBits == 1;
}

// The changes of one particle's children; bit i of a word stands for position 64 * chunk + i.
class Changes {
public:
  explicit Changes(const MaskedArgs& a)
      : a_(a), chunks_((a.length + 63) / 64), open_(chunks_), loose_(chunks_), revealed_(chunks_ * a.branch),
        remasked_(chunks_ * a.branch), words_(a.count >= 0 && !a.confidence ? 64 * chunks_ : 0) {}
  bool complete() const {
    return open_.data && loose_.data && revealed_.data && remasked_.data && words_.data;
  }

  std::uint64_t revealed(std::int64_t child, std::int64_t chunk) const {
    return revealed_[child * chunks_ + chunk];
  }
  std::uint64_t remasked(std::int64_t child, std::int64_t chunk) const {
    return remasked_[child * chunks_ + chunk];
  }

  // `ranks`: keys of the state's positions, where confidence decides. Adds tokens out of range to `trouble`.
  // Copies the tokens to `copy`.
  template <typename Token>
  FG_HD void find(const Token* tokens, std::int64_t state, std::int64_t group, std::uint32_t slot,
                  const std::uint64_t* ranks, Token* copy, Trouble& trouble) {
    const std::int64_t length = a_.lengths ? a_.lengths[group] : a_.length;
    const std::uint64_t key = static_cast<std::uint64_t>(a_.seeds[group]);
    std::int64_t masks = 0;
    used_ = (length + 63) / 64;
    for (std::int64_t c = 0; c < used_; ++c) {
      const int n = length - 64 * c < 64 ? static_cast<int>(length - 64 * c) : 64;
      bool strange = false;
      open_[c] = masked(tokens + 64 * c, n, a_.vocab, strange, copy + 64 * c);
      if (strange)
        trouble.add(2 * a_.particles + state * a_.length + 64 * c + first_strange(tokens + 64 * c, a_.vocab),
                    Code::out_of_range);
      masks += __builtin_popcountll(open_[c]);
      loose_[c] =
          a_.remask_threshold ? ~open_[c] & (~std::uint64_t{0} >> (64 - n)) & ~frozen(state, c, n) : 0;
    }
    if (length < a_.length)
      __builtin_memcpy(copy + length, tokens + length,
                       static_cast<std::size_t>(a_.length - length) * sizeof(Token));
    if (a_.count < 0) {
      for (std::int64_t m = 0; m < a_.branch; ++m)
        decide<true>(m, key, slot + static_cast<std::uint32_t>(m), a_.reveal_threshold);
      return;
    }
    const std::int64_t wanted = a_.counts ? a_.counts[group] : a_.count;
    const std::int64_t count = wanted < masks ? wanted : masks;
    for (std::int64_t m = 0; m < a_.branch; ++m) {
      const bool some = 0 < count && count < masks;
      if (some && !a_.confidence) {
        draw_lots(m, key, slot + static_cast<std::uint32_t>(m), masks, count);
      } else {
        decide<false>(m, key, slot + static_cast<std::uint32_t>(m), 0);
        if (some)
          take(m, ranks, smallest(ranks, length, masks, count, kConfidenceBits));
        else
          for (std::int64_t c = 0; c < used_; ++c)
            revealed_[m * chunks_ + c] = count ? open_[c] : 0;
      }
    }
  }

  std::int64_t used_chunks() const { return used_; }

private:
  std::uint64_t frozen(std::int64_t state, std::int64_t chunk, int n) const {
    if (!a_.frozen)
      return 0;
    const unsigned char* flags = a_.frozen + state * a_.frozen_stride + 64 * chunk;
    std::uint64_t bits = 0;
    for (int i = 0; i < n; ++i)
      bits |= static_cast<std::uint64_t>(flags[i] != 0) << i;
    return bits;
  }

  // Independent decisions, of reveals too if asked.
  template <bool Reveal>
  FG_HD void decide(std::int64_t child, std::uint64_t key, std::uint32_t slot, std::uint64_t threshold) {
    constexpr std::uint64_t kAlways = 0xFFFFFFFFu;
    for (std::int64_t c = 0; c < used_; ++c) {
      const bool draw = Reveal && open_[c] && threshold && threshold <= kAlways;
      const bool loosen = loose_[c] != 0;
      const int n = 64 - __builtin_clzll(open_[c] | loose_[c] | 1);
      Below bits{};
      const std::uint32_t reveal = static_cast<std::uint32_t>(threshold & kAlways);
      if (loosen)
        bits = words_below<true>(key, slot, c, n, a_.step, reveal,
                                 static_cast<std::uint32_t>(a_.remask_threshold & kAlways));
      else if (draw)
        bits = words_below<false>(key, slot, c, n, a_.step, reveal, 0);
      if (Reveal)
        revealed_[child * chunks_ + c] = open_[c] & (threshold > kAlways ? ~std::uint64_t{0} : bits.first);
      remasked_[child * chunks_ + c] =
          loosen ? loose_[c] & (a_.remask_threshold > kAlways ? ~std::uint64_t{0} : bits.second) : 0;
    }
  }

  // Reveals the masks with the `count` smallest words.
  FG_HD void draw_lots(std::int64_t child, std::uint64_t key, std::uint32_t slot, std::int64_t masks,
                       std::int64_t count) {
    const std::uint64_t loosen = a_.remask_threshold;
    for (std::int64_t c = 0; c < used_; ++c) {
      std::uint64_t drop = 0;
      for (int i = 0; i < 64; i += 2 * kLanes) {
        const PositionWords words = position_words(key, slot, 16 * c + i / 4, a_.step);
        if (loosen && loosen <= 0xFFFFFFFFu)
          drop |= below(words, static_cast<std::uint32_t>(loosen)) << i;
        // Words of positions that are not masked become the largest.
        std::uint64_t pairs[kLanes];
        store(pairs, words.pairs[0]);
        store(pairs + kWideLanes, words.pairs[1]);
        for (int k = 0; k < kWideLanes; ++k) {
          __builtin_memcpy(words_.data + 64 * c + i + 4 * k, pairs + k, 8);
          __builtin_memcpy(words_.data + 64 * c + i + 4 * k + 2, pairs + kWideLanes + k, 8);
        }
      }
      for (int i = 0; i < 64; ++i)
        words_[64 * c + i] |= static_cast<std::uint32_t>((open_[c] >> i & 1) - 1);
      remasked_[child * chunks_ + c] = loose_[c] & (loosen > 0xFFFFFFFFu ? ~std::uint64_t{0} : drop);
    }
    take(child, words_.data, smallest(words_.data, 64 * used_, masks, count, 32));
  }

  template <typename Key> FG_HD void take(std::int64_t child, const Key* keys, Smallest smallest) {
    for (std::int64_t c = 0; c < used_; ++c) {
      std::uint64_t taken = 0;
#if defined(FG_LEVEL_avx512)
      if constexpr (sizeof(Key) == 4) {
        // No two of the words are equal but once in 2^32 draws.
        if (smallest.equals == 0) {
          const __m512i bound = _mm512_set1_epi32(static_cast<int>(smallest.bound));
          for (int i = 0; i < 64; i += 16) {
            const __mmask16 under = _mm512_cmplt_epu32_mask(load<__m512i>(keys + 64 * c + i), bound);
            taken |= static_cast<std::uint64_t>(under) << i;
          }
          revealed_[child * chunks_ + c] = open_[c] & taken;
          continue;
        }
      }
#endif
      for (std::uint64_t left = open_[c]; left; left &= left - 1) {
        const int bit = __builtin_ctzll(left);
        const std::uint64_t key = keys[64 * c + bit];
        const bool equal = key == smallest.bound && smallest.equals > 0;
        smallest.equals -= equal;
        taken |= static_cast<std::uint64_t>(key < smallest.bound || equal) << bit;
      }
      revealed_[child * chunks_ + c] = taken;
    }
  }

  const MaskedArgs& a_;
  const std::int64_t chunks_;
  std::int64_t used_ = 0;
  Buffer<std::uint64_t> open_, loose_, revealed_, remasked_;
  Buffer<std::uint32_t> words_;
};

} // namespace fg::FG_LEVEL
