// The best items by score, for one SIMD level.
#pragma once

#include <cstdint>

#include "core/selection.h"

namespace fg::FG_LEVEL {
namespace {

struct Scored {
  std::uint64_t key; // 0: weight of zero
  std::int32_t item;
};

constexpr std::int64_t kInsertion = 32; // up to here a sorted list beats the passes of a radix selection

inline std::int64_t best_bytes(std::int64_t items, std::int64_t draws) {
  return draws <= kInsertion ? draws * static_cast<std::int64_t>(sizeof(Scored))
                             : items * static_cast<std::int64_t>(sizeof(std::uint64_t)) +
                                   2 * draws * static_cast<std::int64_t>(sizeof(Scored));
}

// Descending by key; equal keys keep their order. Returns `a` or `spare`, whichever holds the result.
inline Scored* merge_sort(Scored* a, Scored* spare, std::int64_t n) {
  for (std::int64_t width = 1; width < n; width *= 2) {
    for (std::int64_t left = 0; left < n; left += 2 * width) {
      const std::int64_t middle = left + width < n ? left + width : n;
      const std::int64_t right = left + 2 * width < n ? left + 2 * width : n;
      std::int64_t i = left, j = middle;
      for (std::int64_t to = left; to < right; ++to)
        spare[to] = i < middle && (j >= right || a[i].key >= a[j].key) ? a[i++] : a[j++];
    }
    Scored* sorted = spare;
    spare = a;
    a = sorted;
  }
  return a;
}

// The k-th largest of n keys, digit by digit; `above` becomes the number of larger ones.
inline std::uint64_t kth_largest(const std::uint64_t* keys, std::int64_t n, std::int64_t k,
                                 std::int64_t& above) {
  std::uint64_t prefix = 0, mask = 0;
  above = 0;
  for (int digit = 56; digit >= 0; digit -= 8) {
    std::int64_t histogram[256] = {};
    for (std::int64_t i = 0; i < n; ++i) {
      if ((keys[i] & mask) == prefix)
        ++histogram[keys[i] >> digit & 255];
    }
    std::uint64_t value = 255;
    while (above + histogram[value] < k)
      above += histogram[value--];
    prefix |= value << digit;
    mask |= std::uint64_t{255} << digit;
  }
  return prefix;
}

// Writes the best `draws` items, descending by score, ties to the lowest index; where there are fewer, they
// repeat from the best on, and the result is false. `largest` is the first largest log-weight, whose weight
// is not zero.
template <typename Real, typename Word>
bool take_best(const Real* x, std::int64_t items, std::int64_t draws, Rule rule, std::int64_t largest,
               Word word, char* memory, std::int32_t* ancestors) {
  if (rule == Rule::argmax) {
    for (std::int64_t i = 0; i < draws; ++i)
      ancestors[i] = static_cast<std::int32_t>(largest);
    return true;
  }
  const auto key = [&](std::int64_t i) -> std::uint64_t {
    if (!(x[i] >= static_cast<Real>(-kMaxLogWeight)))
      return 0;
    const double score = static_cast<double>(x[i]);
    return sort_key(rule == Rule::gumbel_topk ? score + gumbel(word(i)) : score);
  };
  std::int64_t found = 0;
  Scored* top = reinterpret_cast<Scored*>(memory);
  if (draws <= kInsertion) {
    for (std::int64_t i = 0; i < items; ++i) {
      const std::uint64_t own = key(i);
      if (own == 0 || (found == draws && own <= top[found - 1].key))
        continue;
      std::int64_t at = found < draws ? found++ : found - 1;
      for (; at > 0 && top[at - 1].key < own; --at)
        top[at] = top[at - 1];
      top[at] = {own, static_cast<std::int32_t>(i)};
    }
  } else {
    std::uint64_t* keys =
        reinterpret_cast<std::uint64_t*>(memory + 2 * draws * static_cast<std::int64_t>(sizeof(Scored)));
    std::int64_t alive = 0;
    for (std::int64_t i = 0; i < items; ++i) {
      keys[i] = key(i);
      alive += keys[i] != 0;
    }
    const std::int64_t wanted = draws < alive ? draws : alive;
    std::int64_t above;
    const std::uint64_t least = kth_largest(keys, items, wanted, above);
    std::int64_t ties = wanted - above;
    for (std::int64_t i = 0; i < items && found < wanted; ++i) {
      if (keys[i] > least || (keys[i] == least && ties-- > 0))
        top[found++] = {keys[i], static_cast<std::int32_t>(i)};
    }
    top = merge_sort(top, top + draws, found);
  }
  for (std::int64_t i = 0; i < draws; ++i)
    ancestors[i] = top[i % found].item;
  return found == draws;
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
