// The largest tokens of rows of at most 32, as many rows at a time as a register has floats. The maxima of
// the rows are merged pair by pair into one register, a row a lane, so that a row costs two shuffles and not
// the eight steps of a reduction, each waiting for the one before.
#pragma once

#include <cstdint>

#include "cpu/lanes.h"
#include "cpu/logits.h"

namespace fg::FG_LEVEL {

// Where the token of a row goes: entry `at` of the filled states.
template <typename Logit> struct OpenRow {
  const Logit* x;
  const float* bias; // or null
  std::int64_t at;
};

template <typename Logit> class SmallModes {
public:
  static constexpr int kRows = kLanes;
  static constexpr int kMostTokens = 32;

  SmallModes(std::int64_t vocab, bool biased)
      : n_(static_cast<int>(vocab)), whole_((n_ - 1) / kLanes * kLanes), biased_(biased) {}

  // Writes the tokens of kRows rows; false, with nothing written, where one of them must be refused.
  template <typename Token> FG_HD bool find(const OpenRow<Logit>* rows, Token* filled) const {
    if constexpr (kLanes * 2 == kMostTokens)
      return whole_ ? find_biased<kLanes>(rows, filled) : find_biased<0>(rows, filled);
    else
      return find_biased<kAnyNumber>(rows, filled);
  }

private:
  static constexpr int kAnyNumber = -1;

  template <int Whole, typename Token>
  FG_HD bool find_biased(const OpenRow<Logit>* rows, Token* filled) const {
    return biased_ ? find_in<Whole, true>(rows, filled) : find_in<Whole, false>(rows, filled);
  }
  template <int Whole, bool Biased, typename Token>
  FG_HD bool find_in(const OpenRow<Logit>* rows, Token* filled) const {
    const int whole = Whole == kAnyNumber ? whole_ : Whole;
    Refusals refusals;
    Floats most[kRows];
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      most[r] = last<Biased>(rows[r], whole);
      refusals.look(most[r]);
      for (int from = 0; from < whole; from += kLanes) {
        const Floats v = some<Biased>(rows[r], from);
        refusals.look(v);
        most[r] = larger(v, most[r]);
      }
    }
#pragma GCC unroll 4
    for (int half = kRows / 2; half >= 1; half /= 2) {
#pragma GCC unroll 8
      for (int r = 0; r < half; ++r)
        most[r] = larger(__builtin_shufflevector(most[r], most[r + half], FG_LOW_HALVES),
                         __builtin_shufflevector(most[r], most[r + half], FG_HIGH_HALVES));
    }
    refusals.look_least(most[0]);
    if (refusals.lanes() != 0)
      return false;
    float largest[kRows];
    store(largest, most[0]);
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      std::uint32_t equal = equal_lanes(last<Biased>(rows[r], whole), largest[r]) << whole;
      for (int from = 0; from < whole; from += kLanes)
        equal |= equal_lanes(some<Biased>(rows[r], from), largest[r]) << from;
      filled[rows[r].at] = static_cast<Token>(__builtin_ctz(equal));
    }
    return true;
  }

  template <bool Biased> FG_HD Floats some(const OpenRow<Logit>& row, int from) const {
    const Floats v = load_logits(row.x + from);
    return Biased ? v + load<Floats>(row.bias + from) : v;
  }
  // The last register, which may not be full: the lanes beyond are forbidden.
  template <bool Biased> FG_HD Floats last(const OpenRow<Logit>& row, int whole) const {
    Floats v = load_first(row.x + whole, n_ - whole);
    if (Biased)
      v = v + load_first(row.bias + whole, n_ - whole);
    return lane_numbers() < n_ - whole ? v : floats(kForbidden);
  }

  const int n_, whole_;
  const bool biased_;
};

} // namespace fg::FG_LEVEL
