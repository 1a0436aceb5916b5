// Systematic and stratified selection: slot j's point lies in [j q, (j + 1) q), and an item ends after the
// slots whose points lie below its own point.
#pragma once

#include "cpu/work.h"

namespace fg::FG_LEVEL {
namespace {

template <typename Real> struct Systematic {
  Divider divider;
  std::int64_t offset; // floor((c + offset) / q) slots have points j q + u below c

  Systematic(const Work<Real>& work, const Share& share)
      : divider(make_divider(share.q)),
        offset(share.q - 1 -
               static_cast<std::int64_t>(mulhi64(work.word(0), static_cast<std::uint64_t>(share.q)))) {}
  std::int64_t operator()(std::int64_t point) const { return divide(point + offset, divider); }
  void operator()(const std::int64_t* points, std::int64_t n, std::int32_t* ends) const {
    for (std::int64_t i = 0; i < n; ++i)
      ends[i] = static_cast<std::int32_t>(divide(points[i] + offset, divider));
  }
};

template <typename Real> struct Stratified {
  const Work<Real>& work;
  Divider divider;

  Stratified(const Work<Real>& w, const Share& share) : work(w), divider(make_divider(share.q)) {}
  std::int64_t operator()(std::int64_t point) const {
    const std::int64_t j = divide(point, divider), left = point - j * divider.q;
    if (left == 0)
      return j;
    const std::uint64_t u = mulhi64(work.word(j), static_cast<std::uint64_t>(divider.q));
    return j + (static_cast<std::int64_t>(u) < left);
  }
  void operator()(const std::int64_t* points, std::int64_t n, std::int32_t* ends) const {
    const ULongs parent = ulongs(static_cast<std::uint64_t>(work.row.parent));
    const ULongs purpose = ulongs(counter_word(work.row.step, Stream::select));
    const ULongs q = ulongs(static_cast<std::uint64_t>(divider.q));
    std::int64_t i = 0;
    for (; i + kWideLanes <= n; i += kWideLanes) {
      std::int64_t slots[kWideLanes], left[kWideLanes];
      for (int k = 0; k < kWideLanes; ++k) {
        slots[k] = divide(points[i + k], divider);
        left[k] = points[i + k] - slots[k] * divider.q;
      }
      const ULongs slot = load<ULongs>(slots);
      const WordLanes words = philox_lanes(work.row.seed, slot >> 1, parent, ulongs(0), purpose);
      const ULongs word = (slot & 1) != 0 ? words.word64(1) : words.word64(0);
      const Longs before = (Longs)multiply_high(word, q) < load<Longs>(left);
      for (int k = 0; k < kWideLanes; ++k)
        ends[i + k] = static_cast<std::int32_t>(slots[k] - before[k]);
    }
    for (; i < n; ++i)
      ends[i] = static_cast<std::int32_t>((*this)(points[i]));
  }
};

template <template <typename> typename Method, typename Real>
void draw_shares(const Work<Real>& work, const Share& share) {
  const std::int64_t first = work.first_block(), last = work.last_block();
  if (first == last)
    return;
  const Method<Real> ends_at(work, share);
  const std::int64_t after = ends_at(set_bases(work, share));
  Writer<Real> writer(work, ends_at(work.blocks[first].base), after);
  alignas(64) std::int32_t ends[kTile];
  for (std::int64_t b = first; b < last; ++b) {
    writer.begin(work.blocks[b]);
    each_tile(work, share, b, [&](std::int64_t i, std::int64_t count, const std::int64_t* points) {
      ends_at(points, count, ends);
      writer.write(ends, b * kBlock + i, count);
    });
    writer.end(work.blocks[b]);
  }
}

} // namespace
} // namespace fg::FG_LEVEL
