// Rows of at most 32 tokens, as many at a time as a register has floats: a row a lane, a token a register.
// Maxima, prefixes and comparisons then cost one instruction a token for all rows, nothing goes across lanes
// but the transposition, and no row waits for another. About 6 ns a row with AVX-512.
#pragma once

#include <cstdint>

#include "core/categorical.h"
#include "cpu/lanes.h"
#include "cpu/logits.h"
#include "cpu/status.h"

namespace fg::FG_LEVEL {

// Register i of `rows` becomes lane i: interleaving the first half with the second, log2(kLanes) times.
FG_HD void transpose(Floats (&rows)[kLanes]) {
#pragma GCC unroll 4
  for (int stage = 1; stage < kLanes; stage *= 2) {
    Floats next[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = __builtin_shufflevector(rows[i], rows[i + kLanes / 2], FG_LOW_HALVES);
      next[2 * i + 1] = __builtin_shufflevector(rows[i], rows[i + kLanes / 2], FG_HIGH_HALVES);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i)
      rows[i] = next[i];
  }
}

// Adds w in the lanes where a > b.
FG_HD void add_where_greater(Floats a, Floats b, const Longs (&w)[2], Longs (&sum)[2]) {
#if defined(FG_LEVEL_avx512)
  const __mmask16 where = _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
  sum[0] = (Longs)_mm512_mask_add_epi64((__m512i)sum[0], static_cast<__mmask8>(where), (__m512i)sum[0],
                                        (__m512i)w[0]);
  sum[1] = (Longs)_mm512_mask_add_epi64((__m512i)sum[1], static_cast<__mmask8>(where >> 8), (__m512i)sum[1],
                                        (__m512i)w[1]);
#else
  const Ints where = a > b;
  for (int i = 0; i < kWideLanes; ++i) {
    sum[0][i] += where[i] ? w[0][i] : 0;
    sum[1][i] += where[kWideLanes + i] ? w[1][i] : 0;
  }
#endif
}

// Adds one in the lanes where a <= b.
FG_HD void count_at_most(Longs a, Longs b, Longs& count) {
#if defined(FG_LEVEL_avx512)
  count = (Longs)_mm512_mask_add_epi64((__m512i)count, _mm512_cmple_epi64_mask((__m512i)a, (__m512i)b),
                                       (__m512i)count, _mm512_set1_epi64(1));
#else
  count -= a <= b;
#endif
}

template <typename Logit> class SmallRows {
public:
  static constexpr int kRows = kLanes;
  static constexpr int kMostTokens = 32;

  explicit SmallRows(const RowSettings& settings)
      : settings_(settings), n_(static_cast<int>(settings.vocab)) {}

  static constexpr bool complete() { return true; }

  // Reads kRows rows.
  FG_HD void read(const RowData<Logit>* rows, Code* codes) {
    load_transposed(rows, &RowData<Logit>::x, &RowData<Logit>::bias, y_);
    Floats max = floats(kForbidden);
    Refusals wrong;
    for (int v = 0; v < n_; ++v)
      take(v, y_[v] * settings_.scale, max, wrong);
    // Elsewhere what lies below -1e9 is too far below the maximum to weigh anything.
    if (settings_.truncates() || rows[0].shift || lanes_below(max, 64.0f + kLeast))
      forbid_below_least(max);
    if (settings_.top_k)
      cut_to_number();
    if (settings_.top_p)
      cut_to_share(max);
    Refusals shifted_wrong;
    Floats shifted_max = max;
    if (rows[0].shift) {
      load_transposed(rows, &RowData<Logit>::shift, nullptr, shift_);
      shifted_max = floats(kForbidden);
      for (int v = 0; v < n_; ++v)
        take(v, y_[v] == floats(kForbidden) ? y_[v] : y_[v] + shift_[v], shifted_max, shifted_wrong);
      forbid_below_least(shifted_max);
    }
    const std::uint32_t bad = wrong.lanes(), empty = equal_lanes(max, kForbidden),
                        bad_then = shifted_wrong.lanes(), empty_then = equal_lanes(shifted_max, kForbidden);
    for (int r = 0; r < kLanes; ++r)
      codes[r] = Code::ok;
    for (std::uint32_t left = bad | empty | bad_then | empty_then; left; left &= left - 1) {
      const int r = __builtin_ctz(left);
      const bool at_first = (bad | empty) >> r & 1;
      codes[r] = (at_first ? bad : bad_then) >> r & 1 ? Code::invalid_value : Code::degenerate;
    }
    weigh_rows<true>(shifted_max);
  }

  // Draws one token from each row.
  FG_HD void draw(const std::uint64_t* words, std::int32_t* tokens) const {
    Longs target[2], found[2] = {};
    for (int half = 0; half < 2; ++half)
      target[half] =
          (Longs)multiply_high(load<ULongs>(words + half * kWideLanes), (ULongs)weights_[n_ - 1][half]);
    for (int v = 0; v < n_; ++v) {
      count_at_most(weights_[v][0], target[0], found[0]);
      count_at_most(weights_[v][1], target[1], found[1]);
    }
    for (int r = 0; r < kLanes; ++r)
      tokens[r] = static_cast<std::int32_t>(found[r / kWideLanes][r % kWideLanes]);
  }

  double confidence(int r) const { return largest_share(max_[r], block_exponent(max_[r]), 0, total_of(r)); }

private:
  std::int64_t total_of(int r) const { return weights_[n_ - 1][r / kWideLanes][r % kWideLanes]; }

  template <typename X>
  FG_HD void load_transposed(const RowData<Logit>* rows, const X* RowData<Logit>::* x,
                             const float* RowData<Logit>::* added, Floats* to) {
    for (int from = 0; from < n_; from += kLanes) {
      const int n = n_ - from < kLanes ? n_ - from : kLanes;
      Floats some[kLanes];
#pragma GCC unroll 16
      for (int r = 0; r < kLanes; ++r) {
        some[r] = load_first(rows[r].*x + from, n);
        if (added && rows[0].*added)
          some[r] = some[r] + load_first(rows[r].*added + from, n);
      }
      transpose(some);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i)
        to[from + i] = some[i];
    }
  }

  // Notes token v's logits.
  FG_HD void take(int v, Floats y, Floats& max, Refusals& wrong) {
    wrong.look(y);
    max = larger(y, max);
    y_[v] = y;
  }
  static FG_HD bool lanes_below(Floats x, float bound) {
    return equal_lanes(larger(x, floats(bound)), bound) != 0;
  }
  void forbid_below_least(Floats& max) {
    max = max >= floats(kLeast) ? max : floats(kForbidden);
    for (int v = 0; v < n_; ++v)
      y_[v] = y_[v] >= floats(kLeast) ? y_[v] : floats(kForbidden);
  }

  // A token stays if fewer than top_k exceed it.
  void cut_to_number() {
    Ints over[kMostTokens];
    for (int v = 0; v < n_; ++v) {
      Ints count = {};
      for (int j = 0; j < n_; ++j)
        count -= y_[j] > y_[v];
      over[v] = count;
    }
    for (int v = 0; v < n_; ++v)
      y_[v] = over[v] < static_cast<std::int32_t>(settings_.top_k) ? y_[v] : floats(kForbidden);
  }

  // A token stays if less than the share wanted lies above it.
  void cut_to_share(Floats max) {
    weigh_rows<false>(max);
    Longs total[2] = {};
    for (int v = 0; v < n_; ++v) {
      total[0] += weights_[v][0];
      total[1] += weights_[v][1];
    }
    std::int64_t needed[kLanes];
    store(needed, total[0]);
    store(needed + kWideLanes, total[1]);
    for (int r = 0; r < kLanes; ++r)
      needed[r] = share_of_total(settings_.top_p, needed[r]);
    Ints kept[kMostTokens];
    for (int v = 0; v < n_; ++v) {
      Longs over[2] = {};
      for (int j = 0; j < n_; ++j)
        add_where_greater(y_[j], y_[v], weights_[j], over);
      const Longs low = over[0] < load<Longs>(needed), high = over[1] < load<Longs>(needed + kWideLanes);
      for (int r = 0; r < kWideLanes; ++r) {
        kept[v][r] = static_cast<std::int32_t>(low[r]);
        kept[v][kWideLanes + r] = static_cast<std::int32_t>(high[r]);
      }
    }
    for (int v = 0; v < n_; ++v)
      y_[v] = kept[v] ? y_[v] : floats(kForbidden);
  }

  // The weights of all tokens, or their running sums.
  template <bool Sums> FG_HD void weigh_rows(Floats max) {
    store(max_, max);
    const Floats finite = max == floats(kForbidden) ? Floats{} : max;
    const LongPair e = weigh_exponents(finite);
    Longs sums[2] = {};
    int v = 0;
    for (; v + kTogether <= n_; v += kTogether)
      weigh_some<Sums, kTogether>(v, e, sums);
    for (; v < n_; v += 2)
      weigh_some<Sums, 2>(v, e, sums);
  }
  template <bool Sums, int Tokens> FG_HD void weigh_some(int v, const LongPair& e, Longs (&sums)[2]) {
    LongPair exponents[Tokens];
    Longs low[Tokens], high[Tokens];
    for (int i = 0; i < Tokens; ++i)
      exponents[i] = e;
    weigh(reinterpret_cast<const float*>(y_ + v), exponents, low, high);
    for (int i = 0; i < Tokens; ++i) {
      sums[0] = Sums ? sums[0] + low[i] : low[i];
      sums[1] = Sums ? sums[1] + high[i] : high[i];
      weights_[v + i][0] = sums[0];
      weights_[v + i][1] = sums[1];
    }
  }

  static constexpr int kTogether = kLanes >= 16 ? 4 : 2;
  const RowSettings settings_;
  const int n_;
  float max_[kLanes] = {};
  Floats y_[kMostTokens] = {}, shift_[kMostTokens];
  Longs weights_[kMostTokens][2];
};

} // namespace fg::FG_LEVEL
