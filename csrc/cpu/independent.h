// Multinomial selection, and residual selection, which draws only what is left after certain copies. A
// multinomial item is all remainder.
//
// An item ends after the certain copies up to it and the targets below its cumulative remainder. Targets are
// therefore sorted into cells as wide as a power of two, about one target a cell: the cell of a bound is a
// shift, the targets of earlier cells lie below it, and only those of its own are compared. Sorting goes in
// two steps, into buckets of cells and then within each bucket, so that both stay in the cache: one search
// among a million a target took 40 ns, this 6.
#pragma once

#include "cpu/work.h"

namespace fg::FG_LEVEL {
namespace {

struct Split {
  std::int64_t copies, remainder;
};

inline Split split_weight(std::int64_t weight, const Divider& divider) {
  const std::int64_t copies = divide(weight, divider);
  return {copies, weight - copies * divider.q};
}

// Calls visit(count, splits) with the copies and remainders of the items of a block, tile by tile.
template <typename Real, typename Visit>
void each_split(const Work<Real>& work, const Share& share, const Divider& divider, std::int64_t b,
                Visit visit) {
  Split splits[kTile];
  std::int64_t before = work.blocks[b].base;
  each_tile(work, share, b, [&](std::int64_t i, std::int64_t count, const std::int64_t* points) {
    splits[0] = split_weight(points[0] - before, divider);
    for (std::int64_t j = 1; j < count; ++j)
      splits[j] = split_weight(points[j] - points[j - 1], divider);
    before = points[count - 1];
    visit(i, count, splits);
  });
}

// Sets copies and remainder before each block, and their totals.
template <typename Real> void sum_splits(const Work<Real>& work, const Share& share, const Divider& divider) {
  set_bases(work, share);
  for (std::int64_t b = work.first_block(); b < work.last_block(); ++b) {
    Block& block = work.blocks[b];
    block.copies = block.remainder = 0;
    if (work.row.rule == Rule::residual) {
      each_split(work, share, divider, b, [&](std::int64_t, std::int64_t count, const Split* splits) {
        for (std::int64_t j = 0; j < count; ++j) {
          block.copies += splits[j].copies;
          block.remainder += splits[j].remainder;
        }
      });
    } else if (block.weight.sum > 0) {
      block.remainder = shift(block.weight.sum, block_shift(share.fold, block.weight));
    }
  }
  work.team.sync();
  if (work.team.id == 0) {
    std::int64_t copies = 0, remainder = 0;
    for (std::int64_t b = 0; b < work.layout.blocks; ++b) {
      Block& block = work.blocks[b];
      const Split own{block.copies, block.remainder};
      block.copies = copies;
      block.remainder = remainder;
      copies += own.copies;
      remainder += own.remainder;
    }
    work.shared.independent = work.row.draws - copies;
    work.shared.remainder = remainder;
  }
  work.team.sync();
}

inline int bit_length(std::int64_t x) {
  return x == 0 ? 0 : 64 - __builtin_clzll(static_cast<std::uint64_t>(x));
}

// The targets of a row, sorted into cells.
template <typename Real> class Targets {
public:
  explicit Targets(const Work<Real>& work)
      : work_(work), count_(work.shared.independent), total_(work.shared.remainder),
        histogram_(work.template array<std::int64_t>(work.layout.at_histogram)),
        drawn_(work.template array<std::int64_t>(work.layout.at_drawn)),
        sorted_(work.template array<std::int64_t>(work.layout.at_targets)),
        ends_(work.template array<std::int32_t>(work.layout.at_ends)) {
    const int spare = bit_length(total_) - bit_length(count_) + 1;
    cell_shift_ = spare > 0 ? spare : 0;
    const int bucket_bits = bit_length(total_ >> cell_shift_) - kBucketBits;
    bucket_shift_ = cell_shift_ + (bucket_bits > kCellBits ? bucket_bits : kCellBits);
    bucket_shift_ = bucket_shift_ < 63 ? bucket_shift_ : 63;
    scatter();
    for (std::int64_t bucket = work.team.first(buckets()); bucket < work.team.last(buckets()); ++bucket)
      sort(bucket);
    work.team.sync();
  }

  // How many targets lie below each of the bounds, which do not fall and are at most the total. Neighbours
  // are compared with all targets in the cells of them all: about one a bound, and read once for a register
  // of bounds.
  void below(const std::int64_t* bounds, std::int64_t n, std::int32_t* counts) const {
    constexpr std::int64_t kRegisters = 2;
    std::int64_t i = 0;
    for (; i + kRegisters * kWideLanes <= n; i += kRegisters * kWideLanes) {
      const std::int32_t first = ends_[bounds[i] >> cell_shift_];
      const std::int32_t last = ends_[(bounds[i + kRegisters * kWideLanes - 1] >> cell_shift_) + 1];
      Longs bound[kRegisters], count[kRegisters];
      for (std::int64_t r = 0; r < kRegisters; ++r) {
        bound[r] = load<Longs>(bounds + i + r * kWideLanes);
        count[r] = Longs{} + first;
      }
      for (std::int32_t at = first; at < last; ++at) {
        const Longs target = Longs{} + sorted_[at];
        for (std::int64_t r = 0; r < kRegisters; ++r)
          count[r] -= target < bound[r];
      }
      for (std::int64_t r = 0; r < kRegisters; ++r) {
        for (std::int64_t k = 0; k < kWideLanes; ++k)
          counts[i + r * kWideLanes + k] = static_cast<std::int32_t>(count[r][k]);
      }
    }
    for (; i < n; ++i)
      counts[i] = below(bounds[i]);
  }
  std::int32_t below(std::int64_t bound) const {
    const std::int64_t cell = bound >> cell_shift_;
    std::int32_t count = ends_[cell];
    for (std::int32_t at = count; at < ends_[cell + 1]; ++at)
      count += sorted_[at] < bound;
    return count;
  }

private:
  static constexpr int kCellBits = 11; // the cells of a bucket fit the first-level cache with their targets

  std::int64_t buckets() const { return (total_ >> bucket_shift_) + 1; }
  std::int64_t& place(std::int64_t bucket, int thread) const {
    return histogram_[thread * kBuckets + bucket]; // a thread's own lie together: none shares a line
  }

  void scatter() const {
    const Team& team = work_.team;
    for (std::int64_t bucket = 0; bucket < buckets(); ++bucket)
      place(bucket, team.id) = 0;
    const ULongs total = ulongs(static_cast<std::uint64_t>(total_));
    const std::int64_t first = team.first(count_), last = team.last(count_);
    work_.each_word(
        first, last, [total](ULongs words) { return multiply_high(words, total); },
        [&](std::int64_t i, std::uint64_t target) {
          sorted_[i] = static_cast<std::int64_t>(target);
          ++place(sorted_[i] >> bucket_shift_, team.id);
        });
    team.sync();
    if (team.id == 0) {
      std::int64_t before = 0;
      for (std::int64_t bucket = 0; bucket < buckets(); ++bucket) {
        for (int thread = 0; thread < team.size; ++thread) {
          const std::int64_t count = place(bucket, thread);
          place(bucket, thread) = before;
          before += count;
        }
      }
    }
    team.sync();
    for (std::int64_t i = first; i < last; ++i)
      drawn_[place(sorted_[i] >> bucket_shift_, team.id)++] = sorted_[i];
    team.sync();
  }

  // Sorts a bucket by cell; ends_[cell + 1] becomes the number of targets up to and including the cell.
  void sort(std::int64_t bucket) const {
    const int last_thread = work_.team.size - 1;
    const std::int64_t first = bucket == 0 ? 0 : place(bucket - 1, last_thread),
                       last = place(bucket, last_thread);
    const std::int64_t cells = (total_ >> cell_shift_) + 1,
                       step = std::int64_t{1} << (bucket_shift_ - cell_shift_);
    const std::int64_t begin = bucket * step, end = begin + step < cells ? begin + step : cells;
    std::int32_t* ends = ends_ + 1;
    if (bucket == 0)
      ends_[0] = 0;
    for (std::int64_t cell = begin; cell < end; ++cell)
      ends[cell] = 0;
    for (std::int64_t i = first; i < last; ++i)
      ++ends[drawn_[i] >> cell_shift_];
    std::int32_t before = static_cast<std::int32_t>(first);
    for (std::int64_t cell = begin; cell < end; ++cell) {
      const std::int32_t count = ends[cell];
      ends[cell] = before;
      before += count;
    }
    for (std::int64_t i = first; i < last; ++i)
      sorted_[ends[drawn_[i] >> cell_shift_]++] = drawn_[i];
  }

  const Work<Real>& work_;
  const std::int64_t count_, total_;
  std::int64_t* const histogram_; // targets a bucket by thread, later where the next of them goes
  std::int64_t* const drawn_;
  std::int64_t* const sorted_;
  std::int32_t* const ends_;
  int cell_shift_, bucket_shift_;
};

template <typename Real> void draw_independent(const Work<Real>& work, const Share& share) {
  const Divider divider = make_divider(share.q);
  sum_splits(work, share, divider);
  const Targets<Real> targets(work);
  const std::int64_t n = work.layout.blocks, first = work.first_block(), last = work.last_block();
  if (first == last)
    return;
  const auto start_of = [&](const Block& block) { return block.copies + targets.below(block.remainder); };
  Writer<Real> writer(work, start_of(work.blocks[first]),
                      last < n ? start_of(work.blocks[last]) : work.row.draws);
  alignas(64) std::int32_t ends[kTile];
  std::int64_t bounds[kTile];
  for (std::int64_t b = first; b < last; ++b) {
    Block& block = work.blocks[b];
    writer.begin(block);
    if (work.row.rule == Rule::residual) {
      Split before{block.copies, block.remainder};
      each_split(work, share, divider, b, [&](std::int64_t i, std::int64_t count, const Split* splits) {
        std::int32_t copies[kTile];
        for (std::int64_t j = 0; j < count; ++j) {
          copies[j] = static_cast<std::int32_t>(before.copies += splits[j].copies);
          bounds[j] = before.remainder += splits[j].remainder;
        }
        targets.below(bounds, count, ends);
        for (std::int64_t j = 0; j < count; ++j)
          ends[j] += copies[j];
        writer.write(ends, b * kBlock + i, count);
      });
    } else {
      each_tile(work, share, b, [&](std::int64_t i, std::int64_t count, const std::int64_t* points) {
        targets.below(points, count, ends);
        writer.write(ends, b * kBlock + i, count);
      });
    }
    writer.end(block);
  }
}

} // namespace
} // namespace fg::FG_LEVEL
