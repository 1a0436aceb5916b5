// The best items by score, for one SIMD level.
#pragma once

#include <cstdint>

#include "core/selection.h"

namespace fg::FG_LEVEL {
namespace {

struct Scored {
  std::uint64_t key; // of the score, or 0 for a weight of zero
  std::int32_t item;

  bool before(const Scored& other) const { return key != other.key ? key > other.key : item < other.item; }
};

inline std::int64_t best_bytes(std::int64_t draws) {
  return draws * static_cast<std::int64_t>(sizeof(Scored));
}

// Lets `entry` sink from `at` in a heap of n whose root is the last in order.
inline void sink(Scored* heap, std::int64_t n, std::int64_t at, Scored entry) {
  for (std::int64_t child = 2 * at + 1; child < n; child = 2 * at + 1) {
    child += child + 1 < n && heap[child].before(heap[child + 1]);
    if (!entry.before(heap[child]))
      break;
    heap[at] = heap[child];
    at = child;
  }
  heap[at] = entry;
}

// Writes the best `draws` items, descending by score, ties to the lowest index; where there are fewer, they
// repeat from the best on, and the result is false. `largest` is the first largest log-weight, whose weight
// is not zero; `memory` holds best_bytes(draws). Time grows as items + draws * log(items / draws) *
// log(draws) for items in no particular order.
template <typename Real, typename Word>
bool take_best(const Real* x, std::int64_t items, std::int64_t draws, Rule rule, std::int64_t largest,
               Word word, char* memory, std::int32_t* ancestors) {
  if (rule == Rule::argmax) {
    for (std::int64_t i = 0; i < draws; ++i)
      ancestors[i] = static_cast<std::int32_t>(largest);
    return true;
  }
  Scored* heap = reinterpret_cast<Scored*>(memory);
  std::int64_t found = 0;
  for (std::int64_t i = 0; i < items; ++i) {
    if (!(x[i] >= static_cast<Real>(-kMaxLogWeight)))
      continue;
    const double score = static_cast<double>(x[i]) + (rule == Rule::gumbel_topk ? gumbel(word(i)) : 0.0);
    const Scored entry{sort_key(score), static_cast<std::int32_t>(i)};
    if (found < draws) {
      heap[found++] = entry;
      for (std::int64_t at = found / 2 - 1; found == draws && at >= 0; --at)
        sink(heap, found, at, heap[at]);
    } else if (entry.before(heap[0])) {
      sink(heap, found, 0, entry);
    }
  }
  const bool enough = found == draws;
  for (std::int64_t at = found / 2 - 1; !enough && at >= 0; --at)
    sink(heap, found, at, heap[at]);
  for (std::int64_t n = found; n-- > 0;) {
    ancestors[n] = heap[0].item;
    if (n > 0)
      sink(heap, n, 0, heap[n]);
  }
  for (std::int64_t i = found; i < draws; ++i)
    ancestors[i] = ancestors[i - found];
  return enough;
}

// Reorders n ancestors so that those drawn stay in their own slots; `counts` holds n numbers.
inline void best_to_slots(std::int32_t* ancestors, std::int64_t n, std::int32_t* counts) {
  for (std::int64_t i = 0; i < n; ++i)
    counts[i] = 0;
  for (std::int64_t i = 0; i < n; ++i)
    ++counts[ancestors[i]];
  std::int64_t source = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    if (counts[i] > 0) {
      ancestors[i] = static_cast<std::int32_t>(i);
      continue;
    }
    while (counts[source] < 2)
      ++source;
    ancestors[i] = static_cast<std::int32_t>(source);
    --counts[source];
  }
}

} // namespace
} // namespace fg::FG_LEVEL
