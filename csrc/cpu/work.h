// The memory that a row is worked on in, for one SIMD level.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/best.h"
#include "cpu/lanes.h"
#include "cpu/offspring.h"
#include "cpu/row.h"
#include "cpu/weights.h"

namespace fg::FG_LEVEL {
namespace {

constexpr std::int64_t kTile = 512;   // points and ends of a tile stay in the first-level cache
constexpr std::int64_t kPadding = 16; // ancestors past the surplus copies that may be scribbled over

struct Block {
  BlockWeight weight;
  double max;
  std::int64_t invalid;   // index within the block of the first refused log-weight, or -1
  std::int64_t base;      // point before the block
  std::int64_t copies;    // residual: certain copies in the block, later before it
  std::int64_t remainder; // residual: remainders in the block, later before it
  std::int64_t slot;      // slots before the block
  std::int64_t dead, surplus;
};

// What a team shares besides the blocks.
struct Shared {
  std::int64_t independent, remainder; // independent draws and their total
  bool enough;                         // whether the best items suffice
};

inline bool draws_independently(Rule rule) {
  return rule == Rule::multinomial || rule == Rule::residual;
}

inline bool takes_best(Rule rule) {
  return rule >= Rule::argmax;
}

constexpr int kBucketBits = 10; // of targets: not more buckets than a cache has lines to write side by side
constexpr std::int64_t kBuckets = std::int64_t{1} << kBucketBits;

struct Layout {
  std::int64_t blocks;
  std::int64_t best; // entries that a thread keeps of its own items
  std::int64_t at_blocks, at_prefixes, at_surplus, at_histogram, at_drawn, at_targets, at_ends;
  std::int64_t at_found, at_taken, at_best, bytes;

  Layout(std::int64_t items, std::int64_t draws, Rule rule, bool slots, int team)
      : blocks((items + kBlock - 1) / kBlock) {
    std::int64_t end = 0;
    const auto take = [&end](std::int64_t n, std::size_t size) {
      const std::int64_t at = end;
      end += (n * static_cast<std::int64_t>(size) + 63) / 64 * 64;
      return at;
    };
    const std::int64_t targets = draws_independently(rule) ? draws : 0;
    take(1, sizeof(Shared));
    at_blocks = take(blocks, sizeof(Block));
    at_prefixes = take(blocks == 1 ? items : 0, sizeof(std::int64_t));
    at_surplus = take(slots ? items + kPadding : 0, sizeof(std::int32_t));
    at_histogram = take(targets > 0 ? kBuckets * team : 0, sizeof(std::int64_t));
    at_drawn = take(targets, sizeof(std::int64_t));
    at_targets = take(targets, sizeof(std::int64_t));
    at_ends = take(targets > 0 ? targets + 2 : 0, sizeof(std::int32_t));
    const std::int64_t most = (blocks + team - 1) / team * kBlock;
    best = takes_best(rule) ? (draws < most ? draws : most) : 0;
    at_found = take(team, sizeof(std::int64_t));
    at_taken = take(team, sizeof(std::int64_t));
    at_best = take(team * best, sizeof(Scored));
    bytes = end;
  }
};

template <typename Real> struct Work {
  const Team& team;
  const Row& row;
  const Layout layout;
  char* const memory;
  const Real* const x;
  Shared& shared;
  Block* const blocks;

  Work(const Team& t, const Row& r, void* workspace)
      : team(t), row(r), layout(r.items, r.draws, r.rule, r.slots, t.size),
        memory(static_cast<char*>(workspace)), x(static_cast<const Real*>(r.log_weights)),
        shared(*reinterpret_cast<Shared*>(memory)),
        blocks(reinterpret_cast<Block*>(memory + layout.at_blocks)) {}

  template <typename T> T* array(std::int64_t at) const { return reinterpret_cast<T*>(memory + at); }
  // Cumulative weights of a row of one block, kept from weighing; null for larger rows, which compute them
  // again.
  std::int64_t* prefixes() const {
    return layout.blocks == 1 ? array<std::int64_t>(layout.at_prefixes) : nullptr;
  }
  std::int32_t* surplus() const { return array<std::int32_t>(layout.at_surplus); }
  const Real* items_of(std::int64_t b) const { return x + b * kBlock; }
  std::int64_t size_of(std::int64_t b) const {
    return b + 1 < layout.blocks ? kBlock : row.items - b * kBlock;
  }
  std::uint64_t word(std::int64_t i) const { return select_word(row.seed, i, row.parent, row.step); }
  // Calls visit(i, make(word i)) for i in [first, last); `make` takes a register of words.
  template <typename Make, typename Visit>
  void each_word(std::int64_t first, std::int64_t last, Make make, Visit visit) const {
    constexpr std::int64_t kCalls = 4; // of Philox in step: one is a serial chain of 80 cycles
    constexpr std::int64_t kCounters = kCalls * kWideLanes;
    const ULongs parent = ulongs(static_cast<std::uint64_t>(row.parent));
    const ULongs purpose = ulongs(counter_word(row.step, Stream::select));
    std::uint64_t words[2][kCounters];
    for (std::int64_t counter = first >> 1; 2 * counter < last; counter += kCounters) {
      for (std::int64_t i = 0; i < kCalls; ++i) {
        const ULongs own = wide_lane_numbers() + static_cast<std::uint64_t>(counter + i * kWideLanes);
        const WordLanes w = philox_lanes(row.seed, own, parent, ulongs(0), purpose);
        store(words[0] + i * kWideLanes, make(w.word64(0)));
        store(words[1] + i * kWideLanes, make(w.word64(1)));
      }
      const std::int64_t begin = 2 * counter > first ? 2 * counter : first;
      const std::int64_t end = 2 * (counter + kCounters) < last ? 2 * (counter + kCounters) : last;
      for (std::int64_t i = begin; i < end; ++i)
        visit(i, words[i & 1][(i >> 1) - counter]);
    }
  }
  std::int64_t first_block() const { return team.first(layout.blocks); }
  std::int64_t last_block() const { return team.last(layout.blocks); }
};

// How the total of a row is shared out among its draws.
struct Share {
  Fold fold;
  std::int64_t largest; // the item that is given `rho`
  std::int64_t rho;
  std::int64_t q; // of a slot
};

inline Share share_of(const Row& row, const Weighed& weighed) {
  const std::int64_t q = (weighed.fold.total + row.draws - 1) / row.draws;
  const std::int64_t rho = row.rule == Rule::multinomial ? 0 : row.draws * q - weighed.fold.total;
  return {weighed.fold, weighed.largest, rho, q};
}

// Sets the points before the thread's own blocks; returns the point after them.
template <typename Real> std::int64_t set_bases(const Work<Real>& work, const Share& share) {
  const std::int64_t first = work.first_block(), last = work.last_block();
  std::int64_t base = 0;
  for (std::int64_t b = 0; b < last; ++b) {
    Block& block = work.blocks[b];
    if (b >= first)
      block.base = base;
    if (block.weight.sum > 0)
      base += shift(block.weight.sum, block_shift(share.fold, block.weight));
    if (b == share.largest / kBlock)
      base += share.rho;
  }
  return base;
}

// Cuts a block into tiles and calls visit(first item, count, base): the point of an item is `base` and its
// cumulative weight within the block, shifted to the scale of the row. The largest item begins a tile.
template <typename Real, typename Visit>
void each_cut(const Work<Real>& work, const Share& share, std::int64_t b, Visit visit) {
  const std::int64_t n = work.size_of(b), largest = share.largest - b * kBlock;
  std::int64_t base = work.blocks[b].base;
  for (std::int64_t i = 0; i < n;) {
    if (i == largest)
      base += share.rho;
    std::int64_t end = i + kTile < n ? i + kTile : n;
    if (i < largest && largest < end)
      end = largest;
    visit(i, end - i, base);
    i = end;
  }
}

inline Shift shift_to_row(const Share& share, const Block& block) {
  return Shift(block.weight.sum == 0 ? -63 : block_shift(share.fold, block.weight));
}

// Calls visit(first item, count, points) over the items of a block, tile by tile.
template <typename Real, typename Visit>
void each_tile(const Work<Real>& work, const Share& share, std::int64_t b, Visit visit) {
  const Block& block = work.blocks[b];
  const Shift to_row = shift_to_row(share, block);
  const std::int64_t* kept = work.prefixes();
  std::int64_t prefix = 0;
  alignas(64) std::int64_t tile[kTile];
  each_cut(work, share, b, [&](std::int64_t i, std::int64_t count, std::int64_t base) {
    const std::int64_t* prefixes = tile;
    if (kept != nullptr)
      prefixes = kept + i;
    else
      prefix = cumulate(work.items_of(b) + i, count, block.weight.exponent, prefix, tile);
    for (std::int64_t j = 0; j < count; ++j)
      tile[j] = base + to_row(prefixes[j]);
    visit(i, count, tile);
  });
}

// Takes the ends of offspring in order and writes ancestors, or survivors and their surplus.
template <typename Real> struct Writer {
  const Work<Real>& work;
  std::int64_t start; // slots before the next item
  std::int64_t limit; // slots that may be scribbled over
  std::int64_t surplus = 0;
  std::int64_t dead = 0;

  // `after` is the slot after the thread's last block.
  Writer(const Work<Real>& w, std::int64_t first, std::int64_t after) : work(w), start(first), limit(after) {
    if (w.team.size == 1)
      limit = w.row.slots ? w.row.draws + kPadding : w.row.limit;
  }
  void begin(Block& block) {
    block.slot = surplus = start;
    dead = 0;
  }
  void write(std::int32_t* ends, std::int64_t item, std::int64_t n) {
    const std::int64_t last = ends[n - 1];
    if (work.row.slots) {
      const std::int64_t before = surplus;
      surplus = keep_survivors(ends, n, item, start, surplus, work.row.ancestors + item, dead);
      fill(ends, n, item, work.surplus(), before, limit);
    } else {
      fill(ends, n, item, work.row.ancestors, start, limit);
    }
    start = last;
  }
  void end(Block& block) const {
    block.dead = dead;
    block.surplus = surplus - block.slot;
  }
};

} // namespace
} // namespace fg::FG_LEVEL
