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

// Bit i of an 8-bit number moved to bit 4 i.
struct Spread {
  std::uint32_t of[256];
  constexpr Spread() : of() {
    for (std::uint32_t n = 0; n < 256; ++n)
      for (std::uint32_t i = 0; i < 8; ++i)
        of[n] |= (n >> i & 1u) << (4 * i);
  }
};
constexpr Spread kSpread;

FG_HD std::uint32_t below(ULongs words, std::uint64_t threshold) {
#if defined(FG_LEVEL_avx512)
  const __m512i low = _mm512_and_si512((__m512i)words, _mm512_set1_epi64(0xFFFFFFFF));
  return _mm512_cmplt_epu64_mask(low, _mm512_set1_epi64(static_cast<long long>(threshold)));
#elif defined(FG_LEVEL_avx2)
  const __m256i low = _mm256_and_si256((__m256i)words, _mm256_set1_epi64x(0xFFFFFFFF));
  const __m256i less = _mm256_cmpgt_epi64(_mm256_set1_epi64x(static_cast<long long>(threshold)), low);
  return static_cast<std::uint32_t>(_mm256_movemask_pd(_mm256_castsi256_pd(less)));
#else
  std::uint32_t bits = 0;
  for (int i = 0; i < kWideLanes; ++i)
    bits |= static_cast<std::uint32_t>((words[i] & 0xFFFFFFFFu) < threshold) << i;
  return bits;
#endif
}

FG_HD WordLanes position_words(std::uint64_t key, std::uint32_t slot, std::int64_t block, std::int64_t step) {
  return philox_lanes(key, ulongs(0), ulongs(slot), wide_lane_numbers() + static_cast<std::uint64_t>(block),
                      ulongs(counter_word(step, Stream::positions)));
}

// Bit i: the word of position 64 * chunk + i is below the first threshold, or the second.
struct Below {
  std::uint64_t first, second;
};
template <bool Both>
FG_HD Below words_below(std::uint64_t key, std::uint32_t slot, std::int64_t chunk, std::int64_t step,
                        std::uint64_t first, std::uint64_t second) {
  Below bits{};
  for (int i = 0; i < 16; i += kWideLanes) {
    const WordLanes words = position_words(key, slot, 16 * chunk + i, step);
    std::uint64_t some = 0, others = 0;
    for (int j = 0; j < 4; ++j) {
      some |= static_cast<std::uint64_t>(kSpread.of[below(words.w[j], first)]) << j;
      if (Both)
        others |= static_cast<std::uint64_t>(kSpread.of[below(words.w[j], second)]) << j;
    }
    bits.first |= some << (4 * i);
    bits.second |= others << (4 * i);
  }
  return bits;
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
  template <typename Token>
  FG_HD void find(const Token* tokens, std::int64_t state, std::int64_t group, std::uint32_t slot,
                  const std::uint64_t* ranks, Trouble& trouble) {
    const std::int64_t length = a_.lengths ? a_.lengths[group] : a_.length;
    const std::uint64_t key = static_cast<std::uint64_t>(a_.seeds[group]);
    std::int64_t masks = 0;
    used_ = (length + 63) / 64;
    for (std::int64_t c = 0; c < used_; ++c) {
      const int n = length - 64 * c < 64 ? static_cast<int>(length - 64 * c) : 64;
      bool strange = false;
      open_[c] = masked(tokens + 64 * c, n, a_.vocab, strange);
      if (strange)
        trouble.add(2 * a_.particles + state * a_.length + 64 * c + first_strange(tokens + 64 * c, a_.vocab),
                    Code::out_of_range);
      masks += __builtin_popcountll(open_[c]);
      if (a_.remask_threshold)
        loose_[c] = ~open_[c] & (~std::uint64_t{0} >> (64 - n)) & ~frozen(state, c, n);
    }
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
      const bool loosen = a_.remask_threshold && loose_[c];
      Below bits{};
      if (loosen)
        bits = words_below<true>(key, slot, c, a_.step, threshold, a_.remask_threshold);
      else if (draw)
        bits = words_below<false>(key, slot, c, a_.step, threshold, 0);
      if (Reveal)
        revealed_[child * chunks_ + c] = open_[c] & (threshold > kAlways ? ~std::uint64_t{0} : bits.first);
      remasked_[child * chunks_ + c] = loosen ? loose_[c] & bits.second : 0;
    }
  }

  // Reveals the masks with the `count` smallest words.
  FG_HD void draw_lots(std::int64_t child, std::uint64_t key, std::uint32_t slot, std::int64_t masks,
                       std::int64_t count) {
    for (std::int64_t c = 0; c < used_; ++c) {
      std::uint64_t drop = 0;
      for (int i = 0; i < 16; i += kWideLanes) {
        const WordLanes words = position_words(key, slot, 16 * c + i, a_.step);
        std::uint64_t some = 0;
        std::uint64_t lanes[4][kWideLanes];
        for (int j = 0; j < 4; ++j) {
          if (a_.remask_threshold)
            some |= static_cast<std::uint64_t>(kSpread.of[below(words.w[j], a_.remask_threshold)]) << j;
          store(lanes[j], words.w[j]);
        }
        for (int l = 0; l < kWideLanes; ++l)
          for (int j = 0; j < 4; ++j)
            words_[64 * c + 4 * (i + l) + j] = static_cast<std::uint32_t>(lanes[j][l]);
        drop |= some << (4 * i);
      }
      for (int i = 0; i < 64; ++i)
        words_[64 * c + i] |= open_[c] >> i & 1 ? 0u : 0xFFFFFFFFu;
      remasked_[child * chunks_ + c] = a_.remask_threshold ? loose_[c] & drop : 0;
    }
    take(child, words_.data, smallest(words_.data, 64 * used_, masks, count, 32));
  }

  template <typename Key> FG_HD void take(std::int64_t child, const Key* keys, Smallest smallest) {
    for (std::int64_t c = 0; c < used_; ++c) {
      std::uint64_t taken = 0;
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
