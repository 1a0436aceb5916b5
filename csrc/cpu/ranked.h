// Arg max, top-k and Gumbel top-k: every thread keeps the best of its own blocks, and one merges what they
// kept.
#pragma once

#include <cmath>

#include "cpu/best.h"
#include "cpu/work.h"

namespace fg::FG_LEVEL {
namespace {

// Offers the items of block b whose log-weights may still be kept. Most blocks of a large row are passed over
// whole, and most others without a branch an item.
template <typename Real> void offer_largest(const Work<Real>& work, std::int64_t b, Best& best) {
  constexpr std::int64_t kStride = 64;
  if (best.refuses(work.blocks[b].max))
    return;
  const Real* x = work.items_of(b);
  const std::int64_t n = work.size_of(b);
  for (std::int64_t i = 0; i < n; i += kStride) {
    const std::int64_t end = i + kStride < n ? i + kStride : n;
    const Real least = static_cast<Real>(best.least());
    int any = 0;
    for (std::int64_t j = i; j < end; ++j)
      any |= x[j] >= least;
    for (std::int64_t j = i; any && j < end; ++j) {
      if (x[j] >= static_cast<Real>(-kMaxLogWeight))
        best.offer(static_cast<double>(x[j]), b * kBlock + j);
    }
  }
}

// The same with Gumbel noise. Where even the largest log-weight of the block needs noise above g to be kept,
// so do all others, and noise above g has a uniform above exp(-exp(-g)): most items are refused by their word
// alone, without a logarithm. The bound is lowered by far more than its rounding.
template <typename Real> void offer_noisy(const Work<Real>& work, std::int64_t b, Best& best) {
  const Real* x = work.items_of(b) - b * kBlock;
  const std::int64_t first = b * kBlock;
  std::uint64_t bound = 0; // of words that may be kept
  std::int64_t checked = first;
  const auto tighten = [&] {
    const double needed = best.least() - work.blocks[b].max;
    const double uniform = std::exp(-std::exp(-needed)) - 1e-9;
    bound = uniform > 0.0 ? static_cast<std::uint64_t>(uniform * 0x1p64) : 0;
  };
  tighten();
  work.each_word(
      first, first + work.size_of(b), [](ULongs words) { return words; },
      [&](std::int64_t i, std::uint64_t word) {
        if (word < bound || !(x[i] >= static_cast<Real>(-kMaxLogWeight)))
          return;
        best.offer(static_cast<double>(x[i]) + gumbel(word), i);
        if (i - checked > 512) {
          checked = i;
          tighten();
        }
      });
}

// Writes the best of what the threads found, ties to the lowest index; where they found fewer than the draws,
// they repeat from the best on, and the result is false.
template <typename Real> bool merge_best(const Work<Real>& work) {
  const std::int64_t* found = work.template array<std::int64_t>(work.layout.at_found);
  const Scored* entries = work.template array<Scored>(work.layout.at_best);
  std::int32_t* ancestors = work.row.ancestors;
  std::int64_t* taken = work.template array<std::int64_t>(work.layout.at_taken);
  for (int t = 0; t < work.team.size; ++t)
    taken[t] = 0;
  for (std::int64_t k = 0; k < work.row.draws; ++k) {
    const Scored* next = nullptr;
    int from = 0;
    for (int t = 0; t < work.team.size; ++t) {
      const Scored* head = entries + t * work.layout.best + taken[t];
      if (taken[t] < found[t] && (next == nullptr || head->before(*next))) {
        next = head;
        from = t;
      }
    }
    if (next == nullptr) {
      for (std::int64_t i = k; i < work.row.draws; ++i)
        ancestors[i] = ancestors[i - k];
      return false;
    }
    ancestors[k] = next->item;
    ++taken[from];
  }
  return true;
}

// Descending by score. False where there are fewer items of nonzero weight than draws.
template <typename Real> bool draw_ranked(const Work<Real>& work, const Weighed& weighed) {
  const Row& row = work.row;
  if (row.rule == Rule::argmax) {
    for (std::int64_t i = work.team.first(row.draws); i < work.team.last(row.draws); ++i)
      row.ancestors[i] = static_cast<std::int32_t>(weighed.largest);
  } else {
    Best best(work.template array<Scored>(work.layout.at_best) + work.team.id * work.layout.best,
              work.layout.best);
    for (std::int64_t b = work.first_block(); b < work.last_block(); ++b) {
      if (row.rule == Rule::topk)
        offer_largest(work, b, best);
      else
        offer_noisy(work, b, best);
    }
    best.sort();
    work.template array<std::int64_t>(work.layout.at_found)[work.team.id] = best.size();
  }
  work.team.sync();
  if (work.team.id == 0) {
    work.shared.enough = row.rule == Rule::argmax || merge_best(work);
    if (row.slots)
      best_to_slots(row.ancestors, row.items, work.surplus());
  }
  work.team.sync();
  return work.shared.enough;
}

} // namespace
} // namespace fg::FG_LEVEL
