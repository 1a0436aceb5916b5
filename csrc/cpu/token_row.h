// One row of logits: its truncation, its integer weights, draws from it. Compiled once a SIMD level.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "core/categorical.h"
#include "cpu/buffer.h"
#include "cpu/candidates.h"
#include "cpu/logits.h"
#include "cpu/status.h"

namespace fg::FG_LEVEL {

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

// Rows are read `kRows` at a time, and then drawn from, each by its number.

// A row of one block (V <= 512): weighed once, then one walk a draw.
template <typename Logit> class NarrowRow {
public:
  static constexpr int kRows = 1;
  static constexpr bool kWide = false;

  explicit NarrowRow(const RowSettings& settings) : settings_(settings) {}
  bool complete() const { return true; }

  FG_HD void read(const RowData<Logit>* row, Code* code) {
    const int n = static_cast<int>(settings_.vocab);
    block_.read(row->x, row->bias, settings_.scale, n);
    *code = status();
    if (*code == Code::ok && settings_.truncates())
      block_.cut(threshold(), nullptr, n);
    if (*code == Code::ok && row->shift) {
      block_.cut(kLeast, row->shift, n);
      *code = status();
    }
    if (*code == Code::ok)
      total_ = block_.template weigh_all<true>(block_exponent(block_.max), weights_);
  }
  FG_HD std::int64_t draw(int, std::uint64_t word) const {
    const std::int64_t target = static_cast<std::int64_t>(mulhi64(word, static_cast<std::uint64_t>(total_)));
    return first_reaching(weights_, target + 1);
  }
  double confidence(int) const { return largest_share(block_.max, block_exponent(block_.max), 0, total_); }

private:
  Code status() const {
    return block_.invalid ? Code::invalid_value : block_.forbidden() ? Code::degenerate : Code::ok;
  }

  float threshold() {
    float least = kLeast;
    Segment segment;
    Candidates candidates(values_, listed_, &segment);
    if (settings_.top_k) {
      candidates.add(block_.y, nullptr, block_.padded, least, kAbove, 0);
      if (candidates.all() >= settings_.top_k)
        least = candidates.threshold(settings_.top_k);
    }
    if (settings_.top_p) {
      block_.template weigh_all<true>(block_exponent(block_.max), weights_);
      candidates.clear();
      candidates.add(block_.y, weights_, block_.padded, least, kAbove, 0);
      least = candidates.threshold(share_of_total(settings_.top_p, candidates.all()));
    }
    return least;
  }

  const RowSettings settings_;
  Block block_;
  alignas(64) std::int64_t weights_[kTokenBlock];
  alignas(64) std::int64_t listed_[kTokenBlock + kLanes];
  alignas(64) float values_[kTokenBlock + kLanes];
  std::int64_t total_ = 0;
};

#if defined(FG_LEVEL_avx512)
// Rows of at most 32 tokens, each in two registers of logits and four of prefixes, without a loop or a
// branch. One row is a chain of some 200 cycles; two are read side by side to fill the waits.
template <typename Logit> class SmallRows {
public:
  static constexpr int kRows = 2;
  static constexpr bool kWide = false;
  static constexpr std::int64_t kMostTokens = 2 * kLanes;

  explicit SmallRows(const RowSettings& settings) : settings_(settings) {}
  bool complete() const { return true; }

  FG_HD void read(const RowData<Logit>* rows, Code* codes) {
    const int n = static_cast<int>(settings_.vocab), first = n < kLanes ? n : kLanes;
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
      Floats a = load_first(rows[r].x, first), b = load_first(rows[r].x + first, n - first);
      if (rows[r].bias) {
        a = a + load_first(rows[r].bias, first);
        b = b + load_first(rows[r].bias + first, n - first);
      }
      codes[r] = take(r, a * settings_.scale, b * settings_.scale);
    }
    Longs low[kRows * 2], high[kRows * 2];
    weigh(y_, exponents_, low, high);
    if (settings_.truncates()) {
      for (int r = 0; r < kRows; ++r)
        truncate(r, low + 2 * r, high + 2 * r);
    }
    if (rows[0].shift) {
      for (int r = 0; r < kRows; ++r) {
        const Floats a = load<Floats>(y_ + 2 * r * kLanes) + load_first(rows[r].shift, first);
        const Floats b =
            load<Floats>(y_ + (2 * r + 1) * kLanes) + load_first(rows[r].shift + first, n - first);
        const Code code = take(r, a, b);
        codes[r] = codes[r] == Code::ok ? code : codes[r];
      }
      weigh(y_, exponents_, low, high);
    }
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
  double confidence(int r) const {
    return largest_share(max_[r], exponents_[2 * r], 0, static_cast<std::int64_t>(total_[r]));
  }

private:
  // Notes the log-weights of row r, lanes beyond the vocabulary forbidden.
  FG_HD Code take(int r, Floats a, Floats b) {
    const int n = static_cast<int>(settings_.vocab);
    const __m512 most = _mm512_set1_ps(kMost);
    a = lane_numbers() < n ? a : floats(kForbidden);
    b = lane_numbers() < n - kLanes ? b : floats(kForbidden);
    const bool valid =
        (_mm512_cmp_ps_mask(a, most, _CMP_NLE_UQ) | _mm512_cmp_ps_mask(b, most, _CMP_NLE_UQ)) == 0;
    a = a >= floats(kLeast) ? a : floats(kForbidden);
    b = b >= floats(kLeast) ? b : floats(kForbidden);
    max_[r] = largest(a > b ? a : b);
    const Code code = !valid ? Code::invalid_value : max_[r] == kForbidden ? Code::degenerate : Code::ok;
    exponents_[2 * r] = exponents_[2 * r + 1] = block_exponent(code == Code::ok ? max_[r] : 0.0f);
    store(y_ + 2 * r * kLanes, a);
    store(y_ + (2 * r + 1) * kLanes, b);
    return code;
  }

  // A token stays if fewer than top_k exceed it, and if less than its share of the total lies above it.
  void truncate(int r, Longs* low, Longs* high) {
    float* y = y_ + 2 * r * kLanes;
    const int n = static_cast<int>(settings_.vocab);
    const __m512 a = load<__m512>(y), b = load<__m512>(y + kLanes);
    __mmask16 first = 0xFFFF, second = 0xFFFF;
    if (settings_.top_k) {
      __m512i over_a = _mm512_setzero_si512(), over_b = over_a;
      const __m512i one = _mm512_set1_epi32(1);
      for (int j = 0; j < n; ++j) {
        const __m512 other = _mm512_set1_ps(y[j]);
        over_a = _mm512_mask_add_epi32(over_a, _mm512_cmp_ps_mask(other, a, _CMP_GT_OQ), over_a, one);
        over_b = _mm512_mask_add_epi32(over_b, _mm512_cmp_ps_mask(other, b, _CMP_GT_OQ), over_b, one);
      }
      const __m512i k = _mm512_set1_epi32(static_cast<int>(settings_.top_k));
      first = _mm512_cmplt_epi32_mask(over_a, k);
      second = _mm512_cmplt_epi32_mask(over_b, k);
    }
    keep(low, high, first, second);
    if (settings_.top_p) {
      alignas(64) std::int64_t w[2 * kLanes];
      store(w, low[0]);
      store(w + 8, high[0]);
      store(w + 16, low[1]);
      store(w + 24, high[1]);
      const std::int64_t needed = share_of_total(settings_.top_p, total(low[0] + high[0] + low[1] + high[1]));
      __m512i over[4] = {};
      for (int j = 0; j < n; ++j) {
        const __m512 other = _mm512_set1_ps(y[j]);
        const __m512i weight = _mm512_set1_epi64(w[j]);
        const __mmask16 in_a = _mm512_cmp_ps_mask(other, a, _CMP_GT_OQ);
        const __mmask16 in_b = _mm512_cmp_ps_mask(other, b, _CMP_GT_OQ);
        over[0] = _mm512_mask_add_epi64(over[0], static_cast<__mmask8>(in_a), over[0], weight);
        over[1] = _mm512_mask_add_epi64(over[1], static_cast<__mmask8>(in_a >> 8), over[1], weight);
        over[2] = _mm512_mask_add_epi64(over[2], static_cast<__mmask8>(in_b), over[2], weight);
        over[3] = _mm512_mask_add_epi64(over[3], static_cast<__mmask8>(in_b >> 8), over[3], weight);
      }
      const __m512i bound = _mm512_set1_epi64(needed);
      std::uint32_t under = 0;
      for (int i = 0; i < 4; ++i)
        under |= static_cast<std::uint32_t>(_mm512_cmplt_epi64_mask(over[i], bound)) << (8 * i);
      first &= static_cast<__mmask16>(under);
      second &= static_cast<__mmask16>(under >> 16);
      keep(low, high, first, second);
    }
    store(y, _mm512_mask_mov_ps(floats(kForbidden), first, a));
    store(y + kLanes, _mm512_mask_mov_ps(floats(kForbidden), second, b));
  }
  static FG_HD void keep(Longs* low, Longs* high, __mmask16 first, __mmask16 second) {
    low[0] = (Longs)_mm512_maskz_mov_epi64(static_cast<__mmask8>(first), (__m512i)low[0]);
    high[0] = (Longs)_mm512_maskz_mov_epi64(static_cast<__mmask8>(first >> 8), (__m512i)high[0]);
    low[1] = (Longs)_mm512_maskz_mov_epi64(static_cast<__mmask8>(second), (__m512i)low[1]);
    high[1] = (Longs)_mm512_maskz_mov_epi64(static_cast<__mmask8>(second >> 8), (__m512i)high[1]);
  }

  const RowSettings settings_;
  alignas(64) float y_[kRows * 2 * kLanes];
  std::int32_t exponents_[kRows * 2];
  float max_[kRows] = {};
  ULongs prefix_[4 * kRows] = {};
  std::uint64_t total_[kRows] = {};
};
#endif

// A row of many blocks: one pass for the shares (before it, where tokens are cut, one for the threshold),
// then each draw weighs its own block again, from memory that a draw from the same block has just read.
template <typename Logit> class WideRow {
public:
  static constexpr int kRows = 1;
  static constexpr bool kWide = true;

  explicit WideRow(const RowSettings& settings)
      : settings_(settings), blocks_((settings.vocab + kTokenBlock - 1) / kTokenBlock),
        headroom_(token_headroom(settings.vocab)), parts_(blocks_) {
    if (settings.truncates()) {
      const std::int64_t listed = blocks_ * (kTokenBlock + kLanes) + kLanes;
      segments_.resize(blocks_);
      listed_weights_.resize(listed);
      listed_values_.resize(listed);
      strips_.resize(blocks_ * kLanes);
      sample_.resize(blocks_ * kSample);
    }
  }
  bool complete() const {
    return parts_.data && (!settings_.truncates() || (segments_.data && listed_weights_.data &&
                                                      listed_values_.data && strips_.data && sample_.data));
  }

  void read(const RowData<Logit>* row, Code* code) {
    row_ = *row;
    weighed_ = -1;
    if (!settings_.truncates()) {
      *code = row->shift ? pass<true, true>(kLeast) : pass<false, true>(kLeast);
      return;
    }
    *code = settings_.top_k ? pass<false, false>(kLeast) : pass<false, true>(kLeast);
    if (*code == Code::ok)
      *code = pass<true, true>(threshold());
  }

  std::int64_t draw(int, std::uint64_t word) {
    std::int64_t rest = static_cast<std::int64_t>(mulhi64(word, static_cast<std::uint64_t>(total_)));
    std::int64_t b = 0;
    while (rest >= parts_[b].share)
      rest -= parts_[b++].share;
    if (b != weighed_) {
      read_block(b);
      if (cuts_)
        cut_block(b);
      block_.template weigh_all<true>(parts_[b].exponent, weights_);
      weighed_ = b;
    }
    const std::int64_t drop = token_shift(parts_[b].exponent, top_, headroom_);
    return b * kTokenBlock + first_reaching(weights_, token_prefix_needed(rest, drop));
  }
  double confidence(int) const { return largest_share(max_, top_, headroom_, total_); }

private:
  struct Part {
    std::int64_t share;
    std::int32_t exponent; // kNone: nothing allowed
    float max;             // of the logits as they are scaled, before anything is cut
  };
  static constexpr std::int32_t kNone = INT32_MIN;
  static constexpr int kSample = 32; // logits of a block from which the threshold is guessed

  Floats read_block(std::int64_t b) {
    const std::int64_t from = b * kTokenBlock;
    return block_.read(row_.x + from, row_.bias ? row_.bias + from : nullptr, settings_.scale, size_of(b));
  }
  void cut_block(std::int64_t b) {
    block_.cut(least_, row_.shift ? row_.shift + b * kTokenBlock : nullptr, size_of(b));
  }
  int size_of(std::int64_t b) const {
    const std::int64_t left = settings_.vocab - b * kTokenBlock;
    return static_cast<int>(left < kTokenBlock ? left : kTokenBlock);
  }

  // Finds the shares of the blocks, and their total; or, for a threshold on numbers, their maxima only.
  // The first pass over a row checks it and notes its maxima; one with a threshold leaves out the blocks
  // below.
  template <bool Cut, bool Weigh> Code pass(float least) {
    const bool again = settings_.truncates() && Cut;
    bool invalid = false, shifted_invalid = false;
    std::int32_t whole_top = kNone;
    least_ = least;
    cuts_ = Cut;
    top_ = kNone;
    max_ = kForbidden;
    for (std::int64_t b = 0; b < blocks_; ++b) {
      Part& part = parts_[b];
      if (again && part.max < least) {
        part.share = 0;
        part.exponent = kNone;
        continue;
      }
      const Floats strips = read_block(b);
      if (!again) {
        part.max = block_.max;
        invalid |= block_.invalid;
        if (settings_.truncates())
          note(b, strips);
      }
      if (Cut && !block_.invalid) {
        whole_top = block_.forbidden() ? whole_top : 0;
        cut_block(b);
        shifted_invalid |= block_.invalid;
      }
      if (block_.invalid || block_.forbidden()) {
        part.share = 0;
        part.exponent = kNone;
        continue;
      }
      part.exponent = block_exponent(block_.max);
      if (Weigh)
        part.share = block_.template weigh_all<false>(part.exponent, weights_);
      top_ = part.exponent > top_ ? part.exponent : top_;
      max_ = block_.max > max_ ? block_.max : max_;
    }
    total_ = 0;
    if (Weigh) {
      for (std::int64_t b = 0; b < blocks_; ++b) {
        parts_[b].share = shift(parts_[b].share, -drop_of(b));
        total_ += parts_[b].share;
      }
    }
    if (invalid)
      return Code::invalid_value;
    if (Cut && whole_top == kNone)
      return Code::degenerate;
    return shifted_invalid ? Code::invalid_value : top_ == kNone ? Code::degenerate : Code::ok;
  }
  std::int64_t drop_of(std::int64_t b) const { return token_shift(parts_[b].exponent, top_, headroom_); }

  // Notes for each lane of block b its largest logit, and a few others.
  void note(std::int64_t b, Floats strips) {
    store(strips_.data + b * kLanes, strips >= floats(kLeast) ? strips : floats(kForbidden));
    const int at = static_cast<int>(96 * b % (kTokenBlock - kSample));
    for (int i = 0; i < kSample; ++i)
      sample_[b * kSample + i] = at + i < block_.padded ? block_.y[at + i] : kForbidden;
  }

  // Lists what lies in [low, high), with its weight or (for numbers) with ones.
  template <bool Weigh> void collect(Candidates& candidates, float low, float high) {
    candidates.clear();
    for (std::int64_t b = 0; b < blocks_; ++b) {
      if (parts_[b].max < low || parts_[b].exponent == kNone)
        continue;
      read_block(b);
      if (Weigh)
        block_.template weigh_all<true>(parts_[b].exponent, weights_);
      const std::int64_t drop = Weigh ? drop_of(b) : 0;
      candidates.add(block_.y, Weigh ? weights_ : nullptr, block_.padded, low, high, drop < 62 ? drop : 62);
    }
  }
  // Lists `n` logits as if they were a row, with weights on the scale of the row's total, or ones.
  template <bool Weigh> void list(Candidates& candidates, const float* y, std::int64_t n) {
    candidates.clear();
    for (std::int64_t from = 0; from < n; from += kTokenBlock) {
      const int size = static_cast<int>(n - from < kTokenBlock ? n - from : kTokenBlock);
      if (Weigh) {
        std::int32_t exponents[1] = {top_ + headroom_};
        for (int i = 0; i < size; i += kLanes) {
          Longs low[1], high[1];
          weigh(y + from + i, exponents, low, high);
          store(weights_ + i, low[0]);
          store(weights_ + i + kWideLanes, high[0]);
        }
      }
      candidates.add(y + from, Weigh ? weights_ : nullptr, size, kLeast, kAbove, 0);
    }
  }

  float threshold() {
    Candidates candidates(listed_values_.data, listed_weights_.data, segments_.data);
    if (settings_.top_k) {
      // As many lanes as that have their largest at or above the bound, so as many logits do.
      const float bound = bound_of<false>(candidates, settings_.top_k);
      collect<false>(candidates, bound, kAbove);
      const float least = candidates.all() < settings_.top_k ? kLeast : candidates.threshold(settings_.top_k);
      if (!settings_.top_p)
        return least;
      collect<true>(candidates, least, kAbove);
      return candidates.threshold(share_of_total(settings_.top_p, candidates.all()));
    }
    const std::int64_t needed = share_of_total(settings_.top_p, total_);
    float low = bound_of<true>(candidates, needed), high = kAbove;
    if (low == kLeast)
      guess(candidates, low, high);
    collect<true>(candidates, low, high);
    if (candidates.above_all() >= needed || candidates.all() < needed)
      collect<true>(candidates, kLeast, kAbove);
    return candidates.threshold(needed);
  }

  // A lower bound of the threshold, close where few tokens are needed: the threshold of the lanes' largest.
  template <bool Weigh> float bound_of(Candidates& candidates, std::int64_t needed) {
    list<Weigh>(candidates, strips_.data, blocks_ * kLanes);
    return candidates.all() < needed ? kLeast : candidates.threshold(needed);
  }

  // Where tokens are many, bounds on either side from the sample, three standard errors apart; tested later.
  void guess(Candidates& candidates, float& low, float& high) {
    list<true>(candidates, sample_.data, blocks_ * kSample);
    const double total = static_cast<double>(candidates.all());
    if (total == 0)
      return;
    double squares = 0;
    for (std::int64_t i = 0; i < blocks_ * kSample; ++i) {
      const double w = static_cast<double>(scaled_weight(sample_[i], top_ + headroom_)) / total;
      squares += w * w;
    }
    const double p = static_cast<double>(settings_.top_p) * 0x1p-64;
    const double error = 3 * std::sqrt(p * (1 - p) * squares);
    if (p + error < 1)
      low = candidates.threshold(1 + static_cast<std::int64_t>((p + error) * total));
    if (p - error > 0) {
      list<true>(candidates, sample_.data, blocks_ * kSample);
      high = candidates.threshold(1 + static_cast<std::int64_t>((p - error) * total));
    }
  }

  const RowSettings settings_;
  const std::int64_t blocks_;
  const int headroom_;
  Buffer<Part> parts_;
  Buffer<Segment> segments_;
  Buffer<std::int64_t> listed_weights_;
  Buffer<float> listed_values_, strips_, sample_;
  Block block_;
  alignas(64) std::int64_t weights_[kTokenBlock];
  RowData<Logit> row_{};
  std::int64_t total_ = 0, weighed_ = -1;
  std::int32_t top_ = 0;
  float least_ = kLeast, max_ = 0;
  bool cuts_ = false;
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
