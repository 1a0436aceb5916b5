// From cumulative weights to the slots that items end at, and from those to ancestors.
#pragma once

#include "core/seed.h"
#include "core/selection.h"
#include "cuda/fold.h"
#include "cuda/select.h"
#include "cuda/tile.h"

namespace fg::cuda {

// A tile of ids in shared memory, a thread's consecutive ones shifted by one word against its neighbour's, so
// that a warp meets every bank once.
template <int threads, int items> struct Ids {
  static constexpr int kSize = threads * items;
  std::int32_t words[kSize + threads];

  __device__ std::int32_t& operator[](int i) { return words[i + i / items]; }
};

// Which slots lie below a point.
struct Share {
  RowFold row;
  Divider divider;
  std::int64_t offset; // systematic: floor((c + offset) / q) slots have points below c
  std::uint64_t seed;
  std::int64_t parent, step, draws;
  bool stratified;

  // Also where the total does not matter (a degenerate row).
  __device__ Share(const RowFold& fold, const Randomness& random, std::int64_t group, std::int64_t parent_,
                   std::int64_t draws_, Rule rule)
      : row(fold), divider(make_divider(fold.q > 0 ? fold.q : 1)),
        seed(random.seeds != nullptr ? static_cast<std::uint64_t>(random.seeds[group])
                                     : expand_seed(random.seed, group)),
        parent(parent_), step(random.step_at != nullptr ? *random.step_at : random.step), draws(draws_),
        stratified(rule == Rule::stratified && draws > 1) {
    offset = divider.q - 1 -
             static_cast<std::int64_t>(
                 mulhi64(select_word(seed, 0, parent, step), static_cast<std::uint64_t>(divider.q)));
  }
  // With one draw all unbiased rules are one.
  __device__ std::int32_t slots_below(std::int64_t point) const {
    if (!stratified)
      return static_cast<std::int32_t>(divide(point + offset, divider));
    const std::int64_t slot = divide(point, divider), left = point - slot * divider.q;
    if (left == 0)
      return static_cast<std::int32_t>(slot);
    const std::uint64_t u =
        mulhi64(select_word(seed, slot, parent, step), static_cast<std::uint64_t>(divider.q));
    return static_cast<std::int32_t>(slot + (static_cast<std::int64_t>(u) < left));
  }
};

// The slots that a thread's items end at; `start` is where the first begins. `largest` is the item of the
// block that the remainder goes to, negative or past the end where it stands in another.
template <int threads, int items, typename Real>
__device__ void find_ends(const Real (&run)[items], std::int32_t exponent, std::int64_t by, std::int64_t base,
                          std::int64_t largest, const Share& share, std::int32_t& start,
                          std::int32_t (&ends)[items]) {
  const int first = static_cast<int>(threadIdx.x) * items;
  std::int64_t prefixes[items], sum = 0;
  FG_UNROLL
  for (int j = 0; j < items; ++j)
    prefixes[j] = sum += scaled_weight(run[j], exponent);
  const std::int64_t before = scan_before<threads>(sum, std::int64_t{0}, Plus{});
  const std::int64_t rho = 0 <= largest && largest < threads * items ? share.row.rho : 0;
  start = share.slots_below(base + shift(before, by) + (largest < first ? rho : 0));
  FG_UNROLL
  for (int j = 0; j < items; ++j)
    ends[j] = share.slots_below(base + shift(before + prefixes[j], by) + (largest <= first + j ? rho : 0));
}

// Puts into ids[0 .. until - from) the items, numbered from 0, that own slots from .. until - 1; at most a
// tile. All slots must be owned.
template <int threads, int items>
__device__ void own_slots(Ids<threads, items>& ids, std::int32_t start, const std::int32_t (&ends)[items],
                          std::int64_t from, std::int64_t until) {
  const int first = static_cast<int>(threadIdx.x) * items;
  FG_UNROLL
  for (int j = 0; j < items; ++j)
    ids[first + j] = -1;
  __syncthreads();
  // An item marks its first slot, and a mark holds until the next.
  std::int32_t begin = start;
  FG_UNROLL
  for (int j = 0; j < items; ++j) {
    if (ends[j] > begin && ends[j] > from && begin < until)
      ids[begin > from ? static_cast<int>(begin - from) : 0] = first + j;
    begin = ends[j];
  }
  __syncthreads();
  std::int32_t own[items], top = -1;
  FG_UNROLL
  for (int j = 0; j < items; ++j) {
    const std::int32_t mark = ids[first + j];
    own[j] = top = mark > top ? mark : top;
  }
  const std::int32_t before = scan_before<threads>(top, -1, Larger{});
  FG_UNROLL
  for (int j = 0; j < items; ++j)
    ids[first + j] = own[j] > before ? own[j] : before;
  __syncthreads();
}

// Writes `id` + the item that owns it to out[slot] for slots from .. until - 1.
template <int threads, int items>
__device__ void fill_slots(Ids<threads, items>& ids, std::int32_t start, const std::int32_t (&ends)[items],
                           std::int64_t from, std::int64_t until, std::int32_t id, std::int32_t* out) {
  constexpr int kSize = Ids<threads, items>::kSize;
  for (; from < until; from += kSize) {
    const std::int64_t last = from + kSize < until ? from + kSize : until;
    own_slots(ids, start, ends, from, last);
    for (int i = static_cast<int>(threadIdx.x); i < last - from; i += threads)
      out[from + i] = id + ids[i];
    __syncthreads();
  }
}

// For `order="slots"`: turns ends of offspring into ends of surplus copies, counted from `start` on. Bit j of
// `alive` is set where item j has offspring.
template <int threads, int items>
__device__ void keep_survivors(std::int32_t& start, std::int32_t (&ends)[items], unsigned& alive,
                               std::int32_t base) {
  std::int32_t begin = start, surplus = 0;
  alive = 0;
  FG_UNROLL
  for (int j = 0; j < items; ++j) {
    const std::int32_t offspring = ends[j] - begin;
    begin = ends[j];
    alive |= static_cast<unsigned>(offspring > 0) << j;
    surplus += offspring - (offspring > 0);
    ends[j] = surplus;
  }
  start = base + scan_before<threads>(surplus, std::int32_t{0}, Plus{});
  FG_UNROLL
  for (int j = 0; j < items; ++j)
    ends[j] += start;
}

} // namespace fg::cuda
