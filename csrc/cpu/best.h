// The best items by score, for one SIMD level.
#pragma once

#include <cmath>
#include <cstdint>

#include "core/selection.h"

namespace fg::FG_LEVEL {
namespace {

struct Scored {
  std::uint64_t key; // of the score, or 0 for a weight of zero
  std::int32_t item;

  bool before(const Scored& other) const { return key != other.key ? key > other.key : item < other.item; }
};

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

// The best entries offered so far, not more than `capacity`. Once full, time grows as the logarithm of the
// capacity for an entry that is kept, and an entry that is not costs a comparison.
class Best {
public:
  Best(Scored* memory, std::int64_t capacity) : heap_(memory), capacity_(capacity) {}

  std::int64_t size() const { return size_; }
  // Whether a score cannot be kept, if its item comes after all those offered.
  bool refuses(double score) const { return size_ == capacity_ && sort_key(score) <= heap_[0].key; }
  // The score that one to be kept must reach, or -inf.
  double least() const { return size_ == capacity_ ? score_of(heap_[0].key) : -INFINITY; }
  void offer(double score, std::int64_t item) {
    const Scored entry{sort_key(score), static_cast<std::int32_t>(item)};
    if (size_ < capacity_) {
      heap_[size_++] = entry;
      if (size_ == capacity_)
        build();
    } else if (entry.before(heap_[0])) {
      sink(heap_, size_, 0, entry);
    }
  }
  // Leaves the entries in order, the best first.
  void sort() {
    if (size_ < capacity_)
      build();
    for (std::int64_t n = size_; n-- > 1;) {
      const Scored worst = heap_[0];
      sink(heap_, n, 0, heap_[n]);
      heap_[n] = worst;
    }
  }

private:
  void build() {
    for (std::int64_t at = size_ / 2 - 1; at >= 0; --at)
      sink(heap_, size_, at, heap_[at]);
  }

  Scored* heap_;
  std::int64_t capacity_, size_ = 0;
};

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
