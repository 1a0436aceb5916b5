// The k smallest of a row of integer keys, without moving them.
#pragma once

#include <cstdint>

#include "core/annotations.h"

namespace fg::FG_LEVEL {

// Keys below `bound` are taken, and of those equal to it the first `equals`.
struct Smallest {
  std::uint64_t bound;
  std::int64_t equals;
};

template <typename Key> FG_HD std::int64_t count_below(const Key* keys, std::int64_t n, Key bound) {
  Key count = 0;
  for (std::int64_t i = 0; i < n; ++i)
    count += keys[i] < bound;
  return static_cast<std::int64_t>(count);
}

// Where the k-th smallest of the n keys below 2^`bits` stands; others (of a larger value) may stand between
// them, and `among` keys are gone through. 0 < k < n. Random keys are found by interpolation in about four
// looks at the row; every second look halves the interval, so that no keys take more than 2 * bits.
template <typename Key>
FG_HD Smallest smallest(const Key* keys, std::int64_t among, std::int64_t n, std::int64_t k, int bits) {
  std::uint64_t low = 0, high = std::uint64_t{1} << bits;
  std::int64_t below_low = 0, below_high = n;
  for (bool halve = false; high - low > 1; halve = !halve) {
    const std::uint64_t width = high - low;
    const double share =
        (static_cast<double>(k - below_low) + 0.5) / static_cast<double>(below_high - below_low + 1);
    std::uint64_t step = halve ? width / 2 : static_cast<std::uint64_t>(static_cast<double>(width) * share);
    step = step < 1 ? 1 : step > width - 1 ? width - 1 : step;
    const std::int64_t below = count_below(keys, among, static_cast<Key>(low + step));
    if (below == k)
      return {low + step, 0};
    (below < k ? low : high) += below < k ? step : step - width;
    (below < k ? below_low : below_high) = below;
  }
  return {low, k - below_low};
}

} // namespace fg::FG_LEVEL
