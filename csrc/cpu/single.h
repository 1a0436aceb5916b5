// One draw from each of many small rows, a row a lane.
//
// With one draw the slot's share is the whole weight, and the unbiased rules are one: the first item whose
// cumulative weight exceeds a uniform target. A row by itself takes 80 ns, most of it latency; 8 of them side
// by side, 5 ns each.
#pragma once

#include <cstdint>

#include "core/selection.h"
#include "cpu/lanes.h"
#include "cpu/select.h"

namespace fg::FG_LEVEL {
namespace {

constexpr std::int64_t kSingleItems =
    32; // cumulative weights of the lanes' rows stay in the first-level cache

inline bool draws_single(const SelectArgs& a) {
  return a.draws == 1 && a.items <= kSingleItems && a.rule != Rule::gumbel_topk && !a.slots;
}

template <typename Real> struct RealLanes;
template <> struct RealLanes<float> {
  using Vector = HalfFloats;
  using Mask = std::int32_t __attribute__((vector_size(2 * kLanes)));
  static constexpr std::int64_t kBits = 0; // of a mantissa beyond kWeightBits
  static Doubles widen(Vector x) { return to_doubles(x); }
  static Longs mantissa(Doubles f) {
    const Vector p = exp2_fraction_float(__builtin_convertvector(f, Vector)) * 0x1p24f;
    return __builtin_convertvector(__builtin_convertvector(p, Mask), Longs) << 26;
  }
};
template <> struct RealLanes<double> {
  using Vector = Doubles;
  using Mask = Longs;
  static constexpr std::int64_t kBits = 3;
  static Doubles widen(Vector x) { return x; }
  static Longs mantissa(Doubles f) {
    const Doubles p = exp2_fraction_double(f) * 0x1p53;
    return __builtin_convertvector(p, Longs);
  }
};

template <typename Mask> bool any_lane(Mask mask) {
  mask = mask != 0;
  std::int64_t any = 0;
  for (int i = 0; i < kWideLanes; ++i)
    any |= mask[i];
  return any != 0;
}

// The keys and the parents of rows [first, first + kWideLanes).
struct RowKeys {
  ULongs seed, parent;

  RowKeys(const SelectArgs& a, std::int64_t first) {
    std::uint64_t groups[kWideLanes], parents[kWideLanes];
    std::int64_t g = first / a.parents, p = first % a.parents;
    for (int i = 0; i < kWideLanes; ++i) {
      groups[i] = a.seeds.each != nullptr ? static_cast<std::uint64_t>(a.seeds.each[g])
                                          : static_cast<std::uint64_t>(g);
      parents[i] = static_cast<std::uint64_t>(p);
      if (++p == a.parents) {
        p = 0;
        ++g;
      }
    }
    seed = load<ULongs>(groups);
    parent = load<ULongs>(parents);
    if (a.seeds.each == nullptr) // expand_seed of csrc/core/seed.h
      seed = philox_lanes(a.seeds.one, seed, seed >> 32, ulongs(0), ulongs(0xFFFFFFFFu)).word64(0) >> 1;
  }
};

// Does rows [first, first + kWideLanes); false, with nothing done, where one of them holds a refused
// log-weight or no weight at all.
template <typename Real> bool draw_single(const SelectArgs& a, std::int64_t first) {
  using Lanes = RealLanes<Real>;
  using Vector = typename Lanes::Vector;
  const Real* x = static_cast<const Real*>(a.log_weights) + first * a.items;
  alignas(64) Real columns[kSingleItems][kWideLanes];
  for (std::int64_t i = 0; i < kWideLanes; ++i) {
    for (std::int64_t j = 0; j < a.items; ++j)
      columns[j][i] = x[i * a.items + j];
  }
  constexpr Real most = static_cast<Real>(kMaxLogWeight);
  Vector top = Vector{} - static_cast<Real>(INFINITY);
  typename Lanes::Mask refused = {};
  for (std::int64_t j = 0; j < a.items; ++j) {
    const Vector column = load<Vector>(columns[j]);
    refused |= ~(column <= most);
    top = column > top ? column : top;
  }
  if (any_lane(refused | (top < -most)))
    return false;

  // block_exponent of csrc/core/exp.h.
  const Doubles t = Lanes::widen(top) * kLog2E, nearest = t + kRound - kRound;
  const Longs ceiling = (Longs)(nearest + kRound) - (Longs)(nearest < t);
  const Longs exponent_bits = ceiling + 1;
  Longs prefixes[kSingleItems], sum = {}, squares = {};
  for (std::int64_t j = 0; j < a.items; ++j) {
    const Vector column = load<Vector>(columns[j]);
    const auto alive = column >= -most;
    const Doubles u = Lanes::widen(alive ? column : Vector{}) * kLog2E, k = u + kRound;
    const Longs m = Lanes::mantissa(u - (k - kRound)) & __builtin_convertvector(alive, Longs);
    const Longs w = shift_right((ULongs)m, (ULongs)(exponent_bits + Lanes::kBits - (Longs)k));
    const ULongs high = (ULongs)(w >> kSquareDrop);
    squares += (Longs)multiply_low(high, high);
    prefixes[j] = sum += w;
  }
  // fold_blocks of one block: the largest weight is at least 2^48, the sum at most 2^54.
  Longs scale = Longs{} + kLargestScale;
  for (int bit = kWeightBits - 2; bit <= kWeightBits + 4; ++bit)
    scale += sum >= std::int64_t{1} << bit;
  const Longs total = sum << scale;

  const Longs exponent = exponent_bits - (std::int64_t{0x4338000000000000});
  const Doubles items = doubles(static_cast<double>(a.items));
  const Doubles weight = __builtin_convertvector(total, Doubles), mean = weight / items;
  const Longs k = ((Longs)mean - 0x3FE6A09E667F3BCD) >> 52;
  const Longs unit = exponent - kWeightBits - scale + k;
  store(a.log_mean_weight + first,
        __builtin_convertvector(unit, Doubles) * kLn2 + log_mantissa((Doubles)((Longs)mean - (k << 52))));
  const Longs divisor = squares > 1 ? squares : Longs{} + 1;
  Doubles ess = weight * weight / __builtin_convertvector(divisor, Doubles) *
                (Doubles)((1023 - 2 * kSquareDrop - 2 * scale) << 52);
  ess = ess > 1.0 ? ess : doubles(1.0);
  store(a.ess + first, ess >= items * (1.0 - 0x1p-48) ? items : ess);

  Longs ancestor = {};
  if (a.rule >= Rule::argmax) {
    for (std::int64_t j = a.items - 1; j >= 0; --j)
      ancestor =
          __builtin_convertvector(load<Vector>(columns[j]) == top, Longs) != 0 ? Longs{} + j : ancestor;
  } else {
    const RowKeys keys(a, first);
    const ULongs word = philox_lanes(keys.seed, ulongs(0), keys.parent, ulongs(0),
                                     ulongs(counter_word(a.step, Stream::select)))
                            .word64(0);
    const Longs target = (Longs)multiply_high(word, (ULongs)total) >> scale;
    for (std::int64_t j = 0; j < a.items; ++j)
      ancestor -= prefixes[j] <= target;
  }
  for (int i = 0; i < kWideLanes; ++i)
    a.ancestors[first + i] = static_cast<std::int32_t>(ancestor[i]);
  return true;
}

} // namespace
} // namespace fg::FG_LEVEL
