#include "cpu/row.h"

#include "cpu/independent.h"
#include "cpu/ranked.h"
#include "cpu/shares.h"
#include "cpu/work.h"

namespace fg::FG_LEVEL {
namespace {

template <typename Real> std::int64_t first_invalid(const Real* x, std::int64_t n) {
  std::int64_t i = 0;
  while (i < n && x[i] <= static_cast<Real>(kMaxLogWeight))
    ++i;
  return i;
}

template <typename Real> std::int64_t find_largest(const Work<Real>& work) {
  constexpr std::int64_t kStride = 64; // compared without a branch each
  std::int64_t top = 0;
  for (std::int64_t b = 1; b < work.layout.blocks; ++b)
    top = work.blocks[b].max > work.blocks[top].max ? b : top;
  const Real max = static_cast<Real>(work.blocks[top].max);
  const Real* x = work.items_of(top);
  std::int64_t i = 0;
  for (; i + kStride < work.size_of(top); i += kStride) {
    int found = 0;
    for (std::int64_t j = 0; j < kStride; ++j)
      found |= x[i + j] == max;
    if (found)
      break;
  }
  while (x[i] != max)
    ++i;
  return top * kBlock + i;
}

template <typename Real> Weighed weigh(const Work<Real>& work) {
  const std::int64_t n = work.layout.blocks;
  for (std::int64_t b = work.first_block(); b < work.last_block(); ++b) {
    Block& block = work.blocks[b];
    const Real* x = work.items_of(b);
    const bool valid = weigh_block(x, work.size_of(b), block.weight, block.max, work.prefixes());
    block.invalid = valid ? -1 : first_invalid(x, work.size_of(b));
  }
  work.team.sync();
  Weighed weighed;
  for (std::int64_t b = 0; b < n; ++b) {
    if (work.blocks[b].invalid >= 0) {
      weighed.invalid = b * kBlock + work.blocks[b].invalid;
      return weighed;
    }
  }
  weighed.fold = fold_blocks(&work.blocks[0].weight, n, sizeof(Block));
  weighed.log_mean_weight = -INFINITY;
  if (!weighed.degenerate()) {
    weighed.log_mean_weight = log_mean_weight(weighed.fold, work.row.items);
    weighed.ess = effective_sample_size(weighed.fold, work.row.items);
    weighed.largest = find_largest(work);
  }
  return weighed;
}

// `order="slots"`: gives the dead slots, in increasing order, the surplus copies in increasing order of
// ancestor.
template <typename Real> void fill_dead(const Work<Real>& work) {
  const std::int64_t n = work.layout.blocks, first = work.first_block(), last = work.last_block();
  work.team.sync();
  std::int64_t skip = 0, source = 0;
  for (std::int64_t b = 0; b < first; ++b)
    skip += work.blocks[b].dead;
  while (source < n && skip >= work.blocks[source].surplus)
    skip -= work.blocks[source++].surplus;
  if (source == n)
    return;
  const std::int32_t* next = work.surplus() + work.blocks[source].slot + skip;
  const std::int32_t* end = next - skip + work.blocks[source].surplus;
  const std::int64_t stop = last < n ? last * kBlock : work.row.items;
  for (std::int64_t i = first * kBlock; i < stop;) {
    expand(work.row.ancestors, i, stop, next, end);
    while (next == end) {
      if (++source == n)
        return;
      next = work.surplus() + work.blocks[source].slot;
      end = next + work.blocks[source].surplus;
    }
  }
}

template <typename Real> bool draw(const Work<Real>& work, const Weighed& weighed) {
  if (takes_best(work.row.rule))
    return draw_ranked(work, weighed);
  const Share share = share_of(work.row, weighed);
  if (work.row.rule == Rule::systematic)
    draw_shares<Systematic>(work, share);
  else if (work.row.rule == Rule::stratified)
    draw_shares<Stratified>(work, share);
  else
    draw_independent(work, share);
  if (work.row.slots)
    fill_dead(work);
  return true;
}

} // namespace

std::int64_t workspace_bytes(std::int64_t items, std::int64_t draws, Rule rule, bool slots, int team) {
  return Layout(items, draws, rule, slots, team).bytes;
}

Weighed weigh_row(const Team& team, const Row& row, void* workspace) {
  return row.is_double ? weigh(Work<double>(team, row, workspace)) : weigh(Work<float>(team, row, workspace));
}

bool draw_row(const Team& team, const Row& row, const Weighed& weighed, void* workspace) {
  return row.is_double ? draw(Work<double>(team, row, workspace), weighed)
                       : draw(Work<float>(team, row, workspace), weighed);
}

void identity_row(const Team& team, const Row& row) {
  for (std::int64_t i = team.first(row.draws); i < team.last(row.draws); ++i)
    row.ancestors[i] = static_cast<std::int32_t>(i % row.items);
}

} // namespace fg::FG_LEVEL
