// Multinomial selection, and residual selection, which draws only what is left after certain copies.
//
// Targets are sorted by block, not further: a block then counts its own by searching its cumulative
// remainders, which lie in the cache. A multinomial item is all remainder.
#pragma once

#include "cpu/work.h"

namespace fg::FG_LEVEL {
namespace {

struct Split {
  std::int64_t copies, remainder;
};

inline Split split_weight(std::int64_t weight, const Divider& divider, bool residual) {
  const std::int64_t copies = residual ? divide(weight, divider) : 0;
  return {copies, weight - copies * divider.q};
}

// The last index with bounds[index] <= t; bounds[0] <= t < bounds[n]. Hence an item whose weight is not zero.
inline std::int64_t search(const std::int64_t* bounds, std::int64_t n, std::int64_t t) {
  std::int64_t at = 0;
  while (n > 1) {
    const std::int64_t half = n / 2;
    at += bounds[at + half] <= t ? half : 0;
    n -= half;
  }
  return at;
}

// Sets copies and remainder before each block, and their totals.
template <typename Real> void sum_splits(const Work<Real>& work, const Share& share, const Divider& divider) {
  const bool residual = work.row.rule == Rule::residual;
  set_bases(work, share);
  for (std::int64_t b = work.first_block(); b < work.last_block(); ++b) {
    Block& block = work.blocks[b];
    std::int64_t copies = 0, remainder = 0, before = block.base;
    if (residual) {
      each_tile(work, share, b, [&](std::int64_t, std::int64_t count, const std::int64_t* points) {
        for (std::int64_t j = 0; j < count; ++j) {
          const Split split = split_weight(points[j] - before, divider, true);
          before = points[j];
          copies += split.copies;
          remainder += split.remainder;
        }
      });
    } else if (block.weight.sum > 0) {
      remainder = shift(block.weight.sum, block_shift(share.fold, block.weight));
    }
    block.copies = copies;
    block.remainder = remainder;
  }
  work.team.sync();
  if (work.team.id == 0) {
    std::int64_t* bounds = work.template array<std::int64_t>(work.layout.at_bounds);
    std::int64_t copies = 0, remainder = 0;
    for (std::int64_t b = 0; b < work.layout.blocks; ++b) {
      Block& block = work.blocks[b];
      const Split own{block.copies, block.remainder};
      block.copies = copies;
      block.remainder = bounds[b] = remainder;
      copies += own.copies;
      remainder += own.remainder;
    }
    bounds[work.layout.blocks] = remainder;
    work.shared.independent = work.row.draws - copies;
    work.shared.remainder = remainder;
  }
  work.team.sync();
}

// Draws the targets, sorts them by block and sets the slots before each block.
template <typename Real> void scatter_targets(const Work<Real>& work) {
  const Team& team = work.team;
  const std::int64_t n = work.layout.blocks;
  const std::int64_t* bounds = work.template array<std::int64_t>(work.layout.at_bounds);
  std::int64_t* histogram = work.template array<std::int64_t>(work.layout.at_histogram); // [block][thread]
  std::int64_t* targets = work.template array<std::int64_t>(work.layout.at_targets);
  const std::uint64_t total = static_cast<std::uint64_t>(work.shared.remainder);
  const auto target = [&](std::int64_t k) { return static_cast<std::int64_t>(mulhi64(work.word(k), total)); };
  const std::int64_t first = team.first(work.shared.independent), last = team.last(work.shared.independent);
  for (std::int64_t b = 0; b < n; ++b)
    histogram[b * team.size + team.id] = 0;
  for (std::int64_t k = first; k < last; ++k)
    ++histogram[search(bounds, n, target(k)) * team.size + team.id];
  team.sync();
  if (team.id == 0) {
    std::int64_t before = 0;
    for (std::int64_t b = 0; b < n; ++b) {
      work.blocks[b].slot = before + work.blocks[b].copies;
      for (int t = 0; t < team.size; ++t) {
        const std::int64_t count = histogram[b * team.size + t];
        histogram[b * team.size + t] = before;
        before += count;
      }
    }
  }
  team.sync();
  for (std::int64_t k = first; k < last; ++k) {
    const std::int64_t t = target(k);
    targets[histogram[search(bounds, n, t) * team.size + team.id]++] = t;
  }
  team.sync();
}

template <typename Real> void draw_independent(const Work<Real>& work, const Share& share) {
  const Divider divider = make_divider(share.q);
  sum_splits(work, share, divider);
  scatter_targets(work);
  const std::int64_t n = work.layout.blocks, first = work.first_block(), last = work.last_block();
  if (first == last)
    return;
  // After the last sort, histogram[b][last thread] is the end of the targets of block b.
  const std::int64_t* histogram = work.template array<std::int64_t>(work.layout.at_histogram);
  const auto targets_end = [&](std::int64_t b) { return histogram[(b + 1) * work.team.size - 1]; };
  const std::int64_t* targets = work.template array<std::int64_t>(work.layout.at_targets);
  const bool residual = work.row.rule == Rule::residual;
  Writer<Real> writer(work, work.blocks[first].slot, last < n ? work.blocks[last].slot : work.row.draws);
  std::int64_t bounds[kBlock + 1];
  std::int32_t ends[kBlock];
  for (std::int64_t b = first; b < last; ++b) {
    Block& block = work.blocks[b];
    const std::int64_t size = work.size_of(b);
    std::int64_t before = block.base;
    bounds[0] = block.remainder;
    each_tile(work, share, b, [&](std::int64_t i, std::int64_t count, const std::int64_t* points) {
      for (std::int64_t j = 0; j < count; ++j) {
        const Split split = split_weight(points[j] - before, divider, residual);
        before = points[j];
        ends[i + j] = static_cast<std::int32_t>(split.copies);
        bounds[i + j + 1] = bounds[i + j] + split.remainder;
      }
    });
    for (std::int64_t k = b == 0 ? 0 : targets_end(b - 1); k < targets_end(b); ++k)
      ++ends[search(bounds, size, targets[k])];
    std::int32_t end = static_cast<std::int32_t>(writer.start);
    for (std::int64_t i = 0; i < size; ++i)
      ends[i] = end += ends[i];
    writer.begin(block);
    writer.write(ends, b * kBlock, size);
    writer.end(block);
  }
}

} // namespace
} // namespace fg::FG_LEVEL
