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

// What the weights of a row sum to, in units that rows of one width share but for the exponent, and the least
// logit that is kept.
struct RowSum {
  std::int32_t exponent;
  std::int64_t total;
  float least;
};

// A row of one block (V <= 512): weighed once, then one walk a draw.
template <typename Logit> class NarrowRow {
public:
  static constexpr int kRows = 1;

  explicit NarrowRow(const RowSettings& settings) : settings_(settings) {}
  bool complete() const { return true; }

  FG_HD Code read(const RowData<Logit>& row) {
    const int n = static_cast<int>(settings_.vocab);
    block_.read(row.x, row.bias, settings_.scale, n);
    Code code = status();
    least_ = kLeast;
    if (code == Code::ok && settings_.truncates())
      block_.cut(least_ = threshold(), nullptr, n);
    if (code == Code::ok && row.shift) {
      block_.cut(kLeast, row.shift, n);
      code = status();
    }
    if (code == Code::ok)
      total_ = block_.weigh_all<true>(block_exponent(block_.max), weights_);
    return code;
  }
  FG_HD std::int64_t draw(std::uint64_t word) const {
    const std::int64_t target = static_cast<std::int64_t>(mulhi64(word, static_cast<std::uint64_t>(total_)));
    return first_reaching(weights_, target + 1);
  }
  double confidence() const { return largest_share(block_.max, block_exponent(block_.max), 0, total_); }
  RowSum sum() const { return {block_exponent(block_.max), total_, least_}; }

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
        least = candidates.threshold(settings_.top_k, least, kAbove);
    }
    if (settings_.top_p) {
      block_.weigh_all<true>(block_exponent(block_.max), weights_);
      candidates.clear();
      candidates.add(block_.y, weights_, block_.padded, least, kAbove, 0);
      least = candidates.threshold(share_of_total(settings_.top_p, candidates.all()), least, kAbove);
    }
    return least;
  }

  const RowSettings settings_;
  Block block_;
  alignas(64) std::int64_t weights_[kTokenBlock];
  alignas(64) std::int64_t listed_[kTokenBlock + kLanes];
  alignas(64) float values_[kTokenBlock + kLanes];
  std::int64_t total_ = 0;
  float least_ = kLeast;
};

// A row of many blocks: one pass for the shares (before it, where tokens are cut, one for the threshold),
// then each draw weighs its own block again, from memory that a draw from the same block has just read.
template <typename Logit> class WideRow {
public:
  static constexpr int kRows = 1;

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

  Code read(const RowData<Logit>& row) {
    row_ = row;
    weighed_ = -1;
    if (!settings_.truncates())
      return row.shift ? pass<true, true>(kLeast) : pass<false, true>(kLeast);
    const Code code = settings_.top_k ? pass<false, false>(kLeast) : pass<false, true>(kLeast);
    if (code != Code::ok)
      return code;
    const float least = threshold();
    if (settings_.top_p && !row.shift) {
      // The search has summed what is kept of each block.
      least_ = least;
      cuts_ = true;
      return Code::ok;
    }
    return pass<true, true>(least);
  }

  std::int64_t draw(std::uint64_t word) {
    std::int64_t rest = static_cast<std::int64_t>(mulhi64(word, static_cast<std::uint64_t>(total_)));
    std::int64_t b = 0;
    while (rest >= parts_[b].share)
      rest -= parts_[b++].share;
    if (b != weighed_) {
      read_block(b);
      if (cuts_)
        cut_block(b);
      block_.weigh_all<true>(parts_[b].exponent, weights_);
      weighed_ = b;
    }
    const std::int64_t drop = token_shift(parts_[b].exponent, top_, headroom_);
    return b * kTokenBlock + first_reaching(weights_, token_prefix_needed(rest, drop));
  }
  double confidence() const { return largest_share(max_, top_, headroom_, total_); }
  RowSum sum() const { return {top_, total_, least_}; }

private:
  struct Part {
    std::int64_t share;
    std::int32_t exponent; // kNone: nothing allowed
    float max;             // of the logits as they are scaled, before anything is cut
  };
  static constexpr std::int32_t kNone = INT32_MIN;
  static constexpr int kAhead = static_cast<int>(2048 / sizeof(Logit));
  static constexpr int kSample = 32; // logits of a block from which the threshold is guessed

  template <int kAhead = 0> Floats read_block(std::int64_t b) {
    const std::int64_t from = b * kTokenBlock;
    return block_.template read<kAhead>(row_.x + from, row_.bias ? row_.bias + from : nullptr,
                                        settings_.scale, size_of(b));
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
      const Floats strips = read_block<kAhead>(b);
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
        part.share = block_.weigh_all<false>(part.exponent, weights_);
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
      const bool empty = parts_[b].max < low || parts_[b].exponent == kNone;
      if (!empty) {
        read_block(b);
        if (Weigh)
          block_.weigh_all<true>(parts_[b].exponent, weights_);
      }
      const std::int64_t drop = Weigh && !empty ? drop_of(b) : 0;
      candidates.add(block_.y, Weigh ? weights_ : nullptr, empty ? 0 : block_.padded, low, high,
                     drop < 62 ? drop : 62);
    }
  }
  // Lists `n` logits as if they were a row, with weights on the scale of the row's total, or ones. Returns
  // the sum of their squares.
  template <bool Weigh> double list(Candidates& candidates, const float* y, std::int64_t n) {
    double squares = 0;
    candidates.clear();
    for (std::int64_t from = 0; from < n; from += kTokenBlock) {
      const int size = static_cast<int>(n - from < kTokenBlock ? n - from : kTokenBlock);
      if (Weigh) {
        const LongPair exponents[1] = {weigh_exponent(top_ + headroom_)};
        for (int i = 0; i < size; i += kLanes) {
          Longs low[1], high[1];
          weigh(y + from + i, exponents, low, high);
          store(weights_ + i, low[0]);
          store(weights_ + i + kWideLanes, high[0]);
        }
        for (int i = 0; i < size; ++i)
          squares += static_cast<double>(weights_[i]) * static_cast<double>(weights_[i]);
      }
      candidates.add(y + from, Weigh ? weights_ : nullptr, size, kLeast, kAbove, 0);
    }
    return Weigh ? squares : static_cast<double>(n);
  }

  // The threshold; where top_p is set, the shares of what it keeps, and their total, too.
  float threshold() {
    Candidates candidates(listed_values_.data, listed_weights_.data, segments_.data);
    float least = kLeast;
    if (settings_.top_k) {
      float low, high;
      enclose<false>(candidates, settings_.top_k,
                     static_cast<double>(settings_.top_k) / static_cast<double>(settings_.vocab), low, high);
      if (candidates.all() >= settings_.top_k)
        least = candidates.threshold(settings_.top_k, low, high);
    }
    if (!settings_.top_p)
      return least;
    if (settings_.top_k) {
      collect<true>(candidates, least, kAbove);
      least = candidates.threshold(share_of_total(settings_.top_p, candidates.all()), least, kAbove);
    } else {
      const std::int64_t needed = share_of_total(settings_.top_p, total_);
      float low, high;
      enclose<true>(candidates, needed, static_cast<double>(settings_.top_p) * 0x1p-64, low, high);
      least = candidates.threshold(needed, low, high);
    }
    total_ = 0;
    for (std::int64_t b = 0; b < blocks_; ++b) {
      parts_[b].share = parts_[b].exponent == kNone ? 0 : shift(candidates.found(b), -drop_of(b));
      total_ += parts_[b].share;
    }
    return least;
  }

  // Lists the candidates between bounds on either side of the threshold. Where few tokens are needed, the
  // largest of every lane of every block give a lower bound that lies close: as much as they hold at or above
  // it, the row holds. Where many are, a sample gives both, two and a half standard errors from the `share`
  // of it that is needed; if they prove wrong, everything is listed.
  template <bool Weigh>
  void enclose(Candidates& candidates, std::int64_t needed, double share, float& low, float& high) {
    low = kLeast;
    high = kAbove;
    list<Weigh>(candidates, strips_.data, blocks_ * kLanes);
    if (candidates.all() >= needed) {
      low = candidates.threshold(needed, kLeast, kAbove);
    } else {
      const std::int64_t sampled = blocks_ * kSample;
      const double squares = list<Weigh>(candidates, sample_.data, sampled);
      const double alive = static_cast<double>(candidates.all());
      const double whole = Weigh ? alive : static_cast<double>(sampled);
      const double error = 2.5 * std::sqrt(share * (1 - share) * squares);
      const std::int64_t most = 1 + static_cast<std::int64_t>(share * whole + error);
      const std::int64_t fewest = static_cast<std::int64_t>(share * whole - error);
      if (fewest > 0 && fewest <= candidates.all()) {
        high = candidates.threshold(fewest, kLeast, kAbove);
        list<Weigh>(candidates, sample_.data, sampled);
      }
      if (most <= candidates.all())
        low = candidates.threshold(most, kLeast, kAbove);
    }
    collect<Weigh>(candidates, low, high);
    if (candidates.above_all() >= needed || candidates.all() < needed) {
      low = kLeast;
      high = kAbove;
      collect<Weigh>(candidates, low, high);
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
