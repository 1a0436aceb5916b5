#include "cpu/row.h"

#include <cstddef>

#include "cpu/best.h"
#include "cpu/offspring.h"
#include "cpu/weights.h"

namespace fg::FG_LEVEL {
namespace {

constexpr std::int64_t kTile = 512; // points and ends of a tile stay in the first-level cache
constexpr std::int64_t kPadding = 16;

bool independent(Rule rule) {
  return rule == Rule::multinomial || rule == Rule::residual;
}

bool takes_best(Rule rule) {
  return rule >= Rule::argmax;
}

// The arrays that follow Shared in a row's workspace.
struct Layout {
  std::int64_t blocks;
  std::int64_t at_blocks, at_surplus, at_bounds, at_histogram, at_targets, at_best, bytes;

  Layout(std::int64_t items, std::int64_t draws, Rule rule, bool slots, int team)
      : blocks((items + kBlock - 1) / kBlock) {
    std::int64_t end = (static_cast<std::int64_t>(sizeof(Shared)) + 63) / 64 * 64;
    const auto take = [&end](std::int64_t n, std::size_t size) {
      const std::int64_t at = end;
      end += (n * static_cast<std::int64_t>(size) + 63) / 64 * 64;
      return at;
    };
    at_blocks = take(blocks, sizeof(Block));
    at_surplus = take(slots ? items + kPadding : 0, sizeof(std::int32_t));
    const bool draw_independently = independent(rule);
    at_bounds = take(draw_independently ? blocks + 1 : 0, sizeof(std::int64_t));
    at_histogram = take(draw_independently ? blocks * team + 1 : 0, sizeof(std::int64_t));
    at_targets = take(draw_independently ? draws : 0, sizeof(std::int64_t));
    at_best = take(takes_best(rule) ? best_bytes(items, draws) : 0, 1);
    bytes = end;
  }
};

// Typed views of a workspace.
template <typename Real> struct Work {
  const Team& team;
  const Row& row;
  Layout layout;
  Shared& shared;
  Block* blocks;
  const Real* x;
  char* memory;

  Work(const Team& t, const Row& r, void* workspace)
      : team(t), row(r), layout(r.items, r.draws, r.rule, r.slots, t.size),
        shared(*static_cast<Shared*>(workspace)),
        blocks(reinterpret_cast<Block*>(static_cast<char*>(workspace) + layout.at_blocks)),
        x(static_cast<const Real*>(r.log_weights)), memory(static_cast<char*>(workspace)) {}

  template <typename T> T* array(std::int64_t at) const { return reinterpret_cast<T*>(memory + at); }
  const Real* items_of(std::int64_t b) const { return x + b * kBlock; }
  std::int64_t size_of(std::int64_t b) const {
    return b + 1 < layout.blocks ? kBlock : row.items - b * kBlock;
  }
  std::uint64_t word(std::int64_t i) const { return select_word(row.seed, i, row.parent, row.step); }
};

// ---- weighing

template <typename Real> std::int64_t first_invalid(const Real* x, std::int64_t n) {
  std::int64_t i = 0;
  while (i < n && x[i] <= static_cast<Real>(kMaxLogWeight))
    ++i;
  return i;
}

template <typename Real> void find_largest(const Work<Real>& work) {
  std::int64_t top = 0;
  for (std::int64_t b = 1; b < work.layout.blocks; ++b)
    top = work.blocks[b].max > work.blocks[top].max ? b : top;
  const Real max = static_cast<Real>(work.blocks[top].max);
  const Real* x = work.items_of(top);
  std::int64_t i = 0;
  while (x[i] != max)
    ++i;
  work.shared.largest = top * kBlock + i;
}

template <typename Real> void fold_row(const Work<Real>& work) {
  Shared& s = work.shared;
  const std::int64_t n = work.layout.blocks;
  s.invalid = -1;
  for (std::int64_t b = n - 1; b >= 0; --b) {
    if (work.blocks[b].invalid >= 0)
      s.invalid = b * kBlock + work.blocks[b].invalid;
  }
  if (s.invalid >= 0)
    return;
  s.fold = fold_blocks(&work.blocks[0].weight, n, sizeof(Block));
  s.degenerate = s.fold.total == 0;
  s.log_mean_weight = s.degenerate ? -INFINITY : log_mean_weight(s.fold, work.row.items);
  s.ess = s.degenerate ? 0.0 : effective_sample_size(s.fold, work.row.items);
  if (!s.degenerate)
    find_largest(work);
}

template <typename Real> void weigh(const Work<Real>& work) {
  const std::int64_t n = work.layout.blocks;
  for (std::int64_t b = work.team.first(n); b < work.team.last(n); ++b) {
    Block& block = work.blocks[b];
    const Real* x = work.items_of(b);
    block.invalid = weigh_block(x, work.size_of(b), block.weight, block.max) ? -1 : first_invalid(x, work.size_of(b));
  }
  work.team.sync();
  if (work.team.id == 0)
    fold_row(work);
  work.team.sync();
}

// ---- drawing

// Puts the points before each block into `base`, with what the largest weight is given where the rule wants it.
template <typename Real> void set_bases(const Work<Real>& work) {
  Shared& s = work.shared;
  const std::int64_t k = work.row.draws;
  s.q = (s.fold.total + k - 1) / k;
  s.rho = work.row.rule == Rule::multinomial ? 0 : k * s.q - s.fold.total;
  std::int64_t base = 0;
  for (std::int64_t b = 0; b < work.layout.blocks; ++b) {
    Block& block = work.blocks[b];
    block.base = base + (b > s.largest / kBlock ? s.rho : 0);
    if (block.weight.sum > 0)
      base += shift(block.weight.sum, block_shift(s.fold, block.weight));
  }
  if (work.row.rule == Rule::systematic)
    s.offset = s.q - 1 - static_cast<std::int64_t>(mulhi64(work.word(0), static_cast<std::uint64_t>(s.q)));
}

// Calls visit(first item, count, points) over the items of a block, tile by tile.
template <typename Real, typename Visit> void each_tile(const Work<Real>& work, std::int64_t b, Visit visit) {
  const Shared& s = work.shared;
  const Block& block = work.blocks[b];
  const std::int64_t n = work.size_of(b);
  const std::int64_t largest = s.largest - b * kBlock;
  const bool empty = block.weight.sum == 0;
  Cumulator points{block.weight.exponent, empty ? -63 : block_shift(s.fold, block.weight), block.base};
  alignas(64) std::int64_t tile[kTile];
  for (std::int64_t i = 0; i < n;) {
    if (i == largest)
      points.base += s.rho;
    std::int64_t end = i + kTile < n ? i + kTile : n;
    if (i < largest && largest < end)
      end = largest;
    points.run(work.items_of(b) + i, end - i, tile);
    visit(i, end - i, tile);
    i = end;
  }
}

// Takes the ends of offspring in order and writes ancestors, or survivors and their surplus.
template <typename Real> struct Writer {
  const Work<Real>& work;
  std::int64_t start;            // slots before the next item
  std::int64_t limit;            // slots that may be scribbled over
  std::int64_t surplus = 0;      // where the block's surplus copies begin, then end
  std::int64_t dead = 0;

  void begin_block() {
    surplus = start;
    dead = 0;
  }
  void write(std::int32_t* ends, std::int64_t item, std::int64_t n) {
    const std::int64_t last = ends[n - 1];
    if (work.row.slots) {
      const std::int64_t before = surplus;
      surplus = keep_survivors(ends, n, item, start, surplus, work.row.ancestors + item, dead);
      fill(ends, n, item, work.template array<std::int32_t>(work.layout.at_surplus), before, limit);
    } else {
      fill(ends, n, item, work.row.ancestors, start, limit);
    }
    start = last;
  }
  void end_block(Block& block) const {
    block.dead = dead;
    block.surplus = surplus - block.first_slot;
  }
};

// Stratified: slots whose point lies below `c`; slot j's point is j q + u_j.
template <typename Real> std::int64_t stratified_end(const Work<Real>& work, const Divider& divider, std::int64_t c) {
  const std::int64_t j = divide(c, divider), left = c - j * divider.q;
  if (left == 0)
    return j;
  const std::uint64_t u = mulhi64(work.word(j), static_cast<std::uint64_t>(divider.q));
  return j + (static_cast<std::int64_t>(u) < left);
}

// The slots that end before point `c`, for rules whose slots each have a share of the total.
template <typename Real> std::int64_t slot_end(const Work<Real>& work, const Divider& divider, std::int64_t c) {
  return work.row.rule == Rule::systematic ? divide(c + work.shared.offset, divider)
                                           : stratified_end(work, divider, c);
}

template <typename Real> void draw_shares(const Work<Real>& work) {
  const Team& team = work.team;
  const std::int64_t n = work.layout.blocks;
  const std::int64_t first = team.first(n), last = team.last(n);
  if (first == last)
    return;
  const Divider divider = make_divider(work.shared.q);
  const std::int64_t start = slot_end(work, divider, work.blocks[first].base);
  std::int64_t limit = work.row.draws;
  if (last < n)
    limit = slot_end(work, divider, work.blocks[last].base);
  else if (team.size == 1)
    limit = work.row.slots ? work.row.draws + kPadding : work.row.limit;
  Writer<Real> writer{work, start, limit};
  alignas(64) std::int32_t ends[kTile];
  for (std::int64_t b = first; b < last; ++b) {
    work.blocks[b].first_slot = writer.start;
    writer.begin_block();
    each_tile(work, b, [&](std::int64_t i, std::int64_t count, const std::int64_t* points) {
      if (work.row.rule == Rule::systematic) {
        const std::int64_t offset = work.shared.offset;
        for (std::int64_t j = 0; j < count; ++j)
          ends[j] = static_cast<std::int32_t>(divide(points[j] + offset, divider));
      } else {
        for (std::int64_t j = 0; j < count; ++j)
          ends[j] = static_cast<std::int32_t>(stratified_end(work, divider, points[j]));
      }
      writer.write(ends, b * kBlock + i, count);
    });
    writer.end_block(work.blocks[b]);
  }
}

// Residual: splits the share of an item into certain copies and a remainder.
struct Share {
  std::int64_t copies, remainder;
};

inline Share split_share(std::int64_t share, const Divider& divider) {
  const std::int64_t copies = divide(share, divider);
  return {copies, share - copies * divider.q};
}

// The first index with bounds[index + 1] > t; bounds[0] <= t < bounds[n].
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
template <typename Real> void sum_shares(const Work<Real>& work) {
  const Team& team = work.team;
  const std::int64_t n = work.layout.blocks;
  Shared& s = work.shared;
  if (work.row.rule == Rule::residual) {
    const Divider divider = make_divider(s.q);
    for (std::int64_t b = team.first(n); b < team.last(n); ++b) {
      Block& block = work.blocks[b];
      block.copies = block.remainder = 0;
      std::int64_t before = block.base;
      each_tile(work, b, [&](std::int64_t, std::int64_t count, const std::int64_t* points) {
        for (std::int64_t j = 0; j < count; ++j) {
          const Share share = split_share(points[j] - before, divider);
          before = points[j];
          block.copies += share.copies;
          block.remainder += share.remainder;
        }
      });
    }
    team.sync();
  }
  if (team.id == 0) {
    std::int64_t* bounds = work.template array<std::int64_t>(work.layout.at_bounds);
    std::int64_t copies = 0, remainder = 0;
    for (std::int64_t b = 0; b < n; ++b) {
      Block& block = work.blocks[b];
      if (work.row.rule == Rule::multinomial) {
        block.copies = 0;
        block.remainder = block.base;
      } else {
        const std::int64_t own_copies = block.copies, own_remainder = block.remainder;
        block.copies = copies;
        block.remainder = remainder;
        copies += own_copies;
        remainder += own_remainder;
      }
      bounds[b] = block.remainder;
    }
    s.independent = work.row.draws - copies;
    s.remainder = work.row.rule == Rule::multinomial ? s.fold.total : remainder;
    bounds[n] = s.remainder;
  }
  team.sync();
}

// Draws the independent targets and sorts them by block (their order within a block does not matter).
template <typename Real> void scatter_targets(const Work<Real>& work) {
  const Team& team = work.team;
  const std::int64_t n = work.layout.blocks;
  const Shared& s = work.shared;
  const std::int64_t* bounds = work.template array<std::int64_t>(work.layout.at_bounds);
  std::int64_t* histogram = work.template array<std::int64_t>(work.layout.at_histogram); // [block][thread]
  std::int64_t* targets = work.template array<std::int64_t>(work.layout.at_targets);
  const auto target = [&](std::int64_t k) {
    return static_cast<std::int64_t>(mulhi64(work.word(k), static_cast<std::uint64_t>(s.remainder)));
  };
  const std::int64_t first = team.first(s.independent), last = team.last(s.independent);
  for (std::int64_t b = 0; b < n; ++b)
    histogram[b * team.size + team.id] = 0;
  for (std::int64_t k = first; k < last; ++k)
    ++histogram[search(bounds, n, target(k)) * team.size + team.id];
  team.sync();
  if (team.id == 0) {
    std::int64_t total = 0;
    for (std::int64_t b = 0; b < n; ++b) {
      work.blocks[b].first_slot = total + work.blocks[b].copies;
      for (int t = 0; t < team.size; ++t) {
        const std::int64_t count = histogram[b * team.size + t];
        histogram[b * team.size + t] = total;
        total += count;
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

template <typename Real> void draw_independent(const Work<Real>& work) {
  sum_shares(work);
  scatter_targets(work);
  const Team& team = work.team;
  const std::int64_t n = work.layout.blocks;
  const std::int64_t first = team.first(n), last = team.last(n);
  if (first == last)
    return;
  const Divider divider = make_divider(work.shared.q);
  const std::int64_t* targets = work.template array<std::int64_t>(work.layout.at_targets);
  const bool residual = work.row.rule == Rule::residual;
  std::int64_t limit = work.row.draws;
  if (last < n)
    limit = work.blocks[last].first_slot;
  else if (team.size == 1)
    limit = work.row.slots ? work.row.draws + kPadding : work.row.limit;
  Writer<Real> writer{work, work.blocks[first].first_slot, limit};
  std::int64_t bounds[kBlock + 1];
  std::int32_t counts[kBlock];
  for (std::int64_t b = first; b < last; ++b) {
    const Block& block = work.blocks[b];
    const std::int64_t size = work.size_of(b), first_slot = block.first_slot;
    bounds[0] = block.remainder;
    std::int64_t before = block.base;
    each_tile(work, b, [&](std::int64_t i, std::int64_t count, const std::int64_t* points) {
      for (std::int64_t j = 0; j < count; ++j) {
        const Share share = residual ? split_share(points[j] - before, divider) : Share{0, points[j] - before};
        before = points[j];
        counts[i + j] = static_cast<std::int32_t>(share.copies);
        bounds[i + j + 1] = bounds[i + j] + share.remainder;
      }
    });
    const std::int64_t end_slot = b + 1 < n ? work.blocks[b + 1].first_slot - work.blocks[b + 1].copies
                                            : work.shared.independent;
    for (std::int64_t k = first_slot - block.copies; k < end_slot; ++k)
      ++counts[search(bounds, size, targets[k])];
    std::int32_t end = static_cast<std::int32_t>(first_slot);
    for (std::int64_t i = 0; i < size; ++i)
      counts[i] = end += counts[i];
    writer.begin_block();
    writer.write(counts, b * kBlock, size);
    writer.end_block(work.blocks[b]);
  }
}

// `order="slots"`: gives the dead slots, in increasing order, the surplus copies in increasing order of ancestor.
template <typename Real> void fill_dead(const Work<Real>& work) {
  const Team& team = work.team;
  const std::int64_t n = work.layout.blocks;
  const std::int32_t* surplus = work.template array<std::int32_t>(work.layout.at_surplus);
  team.sync();
  const std::int64_t first = team.first(n), last = team.last(n);
  std::int64_t skip = 0;
  for (std::int64_t b = 0; b < first; ++b)
    skip += work.blocks[b].dead;
  std::int64_t source = 0;
  while (source < n && skip >= work.blocks[source].surplus)
    skip -= work.blocks[source++].surplus;
  if (source == n)
    return;
  const std::int32_t* next = surplus + work.blocks[source].first_slot + skip;
  const std::int32_t* end = surplus + work.blocks[source].first_slot + work.blocks[source].surplus;
  std::int32_t* ancestors = work.row.ancestors;
  const std::int64_t stop = last < n ? last * kBlock : work.row.items;
  for (std::int64_t i = first * kBlock; i < stop;) {
    expand(ancestors, i, stop, next, end);
    while (next == end) {
      if (++source == n)
        return;
      next = surplus + work.blocks[source].first_slot;
      end = next + work.blocks[source].surplus;
    }
  }
}

template <typename Real> void draw(const Work<Real>& work) {
  if (takes_best(work.row.rule)) {
    if (work.team.id == 0) {
      const bool enough = take_best(work.x, work.row.items, work.row.draws, work.row.rule, work.shared.largest,
                                    [&](std::int64_t i) { return work.word(i); },
                                    work.template array<char>(work.layout.at_best), work.row.ancestors);
      work.shared.degenerate = !enough;
      if (work.row.slots)
        best_to_slots(work.row.ancestors, work.row.items, work.template array<std::int32_t>(work.layout.at_surplus));
    }
    work.team.sync();
    return;
  }
  if (work.team.id == 0)
    set_bases(work);
  work.team.sync();
  if (independent(work.row.rule))
    draw_independent(work);
  else
    draw_shares(work);
  if (work.row.slots)
    fill_dead(work);
  work.team.sync();
}

} // namespace

std::int64_t workspace_bytes(std::int64_t items, std::int64_t draws, Rule rule, bool slots, int team) {
  return Layout(items, draws, rule, slots, team).bytes;
}

void weigh_row(const Team& team, const Row& row, void* workspace) {
  if (row.is_double)
    weigh(Work<double>(team, row, workspace));
  else
    weigh(Work<float>(team, row, workspace));
}

void draw_row(const Team& team, const Row& row, void* workspace) {
  if (row.is_double)
    draw(Work<double>(team, row, workspace));
  else
    draw(Work<float>(team, row, workspace));
}

void identity_row(const Team& team, const Row& row) {
  for (std::int64_t i = team.first(row.draws); i < team.last(row.draws); ++i)
    row.ancestors[i] = static_cast<std::int32_t>(i % row.items);
}

} // namespace fg::FG_LEVEL
