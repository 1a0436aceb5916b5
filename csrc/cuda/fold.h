// The blocks of a row at one scale, by one block of threads: what fold_blocks of core/selection.h finds one
// candidate after the other.
//
// A rough total in floating point leaves at most three candidates, whose exact totals decide.
#pragma once

#include <climits>

#include "core/selection.h"
#include "cuda/tile.h"

namespace fg::cuda {

// A row's weights and how they are shared out. One with a log-weight that is refused counts as degenerate.
struct RowFold {
  std::int64_t total, squares, largest, q, rho;
  std::int32_t exponent, scale, square_drop;

  FG_HD bool degenerate() const { return total == 0; }
  FG_HD Fold fold() const {
    Fold f;
    f.exponent = exponent;
    f.scale = scale;
    f.total = total;
    f.square_drop = square_drop;
    f.squares = squares;
    return f;
  }
};

FG_HD std::int64_t shift_of(const RowFold& row, const Weighed& block) {
  return row.scale - (static_cast<std::int64_t>(row.exponent) - block.exponent);
}

struct TopBlock {
  double max;
  std::int64_t block;
  std::int32_t exponent; // INT_MIN where every weight is zero
  bool refused;
};
struct TopBlockOf {
  FG_HD TopBlock operator()(const TopBlock& a, const TopBlock& b) const {
    const bool first = a.max > b.max || (a.max == b.max && a.block < b.block);
    return {first ? a.max : b.max, first ? a.block : b.block,
            a.exponent > b.exponent ? a.exponent : b.exponent, a.refused || b.refused};
  }
};

struct Rough {
  double sum, squares;

  FG_HD Rough operator+(const Rough& other) const { return {sum + other.sum, squares + other.squares}; }
};

// Totals above the limit by more than rounding need not be found exactly, and could overflow.
FG_HD int largest_candidate(double rough, int first, int last) {
  while (first > last && rough * power_of_two(first) >= 1.5 * static_cast<double>(kTotalLimit))
    --first;
  return first;
}

template <int threads>
__device__ RowFold fold_row(const Weighed* blocks, std::int64_t n, std::int64_t draws) {
  TopBlock top{-static_cast<double>(INFINITY), LLONG_MAX, INT_MIN, false};
  for (std::int64_t b = threadIdx.x; b < n; b += threads) {
    const Weighed& block = blocks[b];
    if (block.sum > 0 || block.largest < 0)
      top =
          TopBlockOf{}(top, {block.max, b, block.largest < 0 ? INT_MIN : block.exponent, block.largest < 0});
  }
  top = reduce<threads>(top, TopBlockOf{});
  RowFold row{};
  if (top.exponent == INT_MIN || top.refused)
    return row;
  row.exponent = top.exponent;
  row.largest = top.block * kBlock + blocks[top.block].largest;

  Rough rough{};
  for (std::int64_t b = threadIdx.x; b < n; b += threads) {
    const Weighed& block = blocks[b];
    const std::int64_t gap = static_cast<std::int64_t>(row.exponent) - block.exponent;
    if (block.sum > 0 && gap < 500)
      rough = rough + Rough{static_cast<double>(block.sum) * power_of_two(-gap),
                            static_cast<double>(block.squares) * power_of_two(-2 * gap)};
  }
  rough = reduce<threads>(rough, Plus{});
  row.scale = largest_candidate(rough.sum, kLargestScale, kSmallestScale);
  row.square_drop = -largest_candidate(rough.squares, 0, kSmallestScale);
  for (;;) {
    Sums exact{};
    for (std::int64_t b = threadIdx.x; b < n; b += threads) {
      const Weighed& block = blocks[b];
      const std::int64_t gap = static_cast<std::int64_t>(row.exponent) - block.exponent;
      if (block.sum > 0)
        exact =
            exact + Sums{shift(block.sum, row.scale - gap), shift(block.squares, -row.square_drop - 2 * gap)};
    }
    exact = reduce<threads>(exact, Plus{});
    row.total = exact.sum;
    row.squares = exact.squares;
    const bool fits = exact.sum <= kTotalLimit - n, squares_fit = exact.squares <= kTotalLimit;
    if (fits && squares_fit)
      break;
    row.scale -= !fits;
    row.square_drop += !squares_fit;
  }
  row.q = (row.total + draws - 1) / draws;
  row.rho = draws * row.q - row.total;
  return row;
}

// Points before each block, bases[0 .. n]; of a degenerate row all 0.
template <int threads>
__device__ void set_bases(const Weighed* blocks, std::int64_t n, const RowFold& row, std::int64_t* bases) {
  std::int64_t carry = 0;
  for (std::int64_t first = 0; first < n; first += threads) {
    const std::int64_t b = first + threadIdx.x;
    std::int64_t own = 0, all;
    if (!row.degenerate() && b < n && blocks[b].sum > 0)
      own = shift(blocks[b].sum, shift_of(row, blocks[b]));
    if (b == row.largest / kBlock)
      own += row.rho;
    const std::int64_t before = sum_before<threads>(own, all);
    if (b < n)
      bases[b] = carry + before;
    carry += all;
  }
  if (threadIdx.x == 0)
    bases[n] = carry;
  __syncthreads();
}

} // namespace fg::cuda
