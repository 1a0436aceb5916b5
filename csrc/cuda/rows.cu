#include "cuda/copy.h"
#include "cuda/rows.h"

#include "core/reweight.h"
#include "cuda/offspring.h"

namespace fg::cuda {
namespace {

constexpr std::int64_t kOwn = 2 * kBlock;    // slots that a block fills for its own items, more than a tile
constexpr std::int64_t kAlone = 16 * kBlock; // draws from one block of items that one block of threads fills
constexpr int kFoldThreads = 512;

using Tile = Ids<kThreads, kItems>;

struct Survivors {
  std::int32_t slot; // slots before the block of items
  std::int32_t alive;
};

// Where things stand in the workspace.
struct Layout {
  std::int64_t blocks;   // of a row
  Weighed* weighed;      // [rows, blocks]
  RowFold* folds;        // [rows], and
  std::int64_t* bases;   // [rows, blocks + 1]: beyond kFew blocks
  Survivors* survivors;  // [rows, blocks], and
  std::uint16_t* alive;  // [rows, blocks, kThreads], and
  std::int32_t* surplus; // [rows, draws], and
  std::int32_t* copies;  // [rows, blocks + 1], beyond kFew: surplus copies before a block: order="slots"
  std::int64_t bytes;
  bool folded; // once, in a launch of its own

  Layout(std::int64_t rows, std::int64_t items, std::int64_t draws, bool slots, void* workspace)
      : blocks((items + kBlock - 1) / kBlock) {
    std::int64_t end = 0;
    const auto take = [&](auto*& array, std::int64_t n) {
      array = reinterpret_cast<std::remove_reference_t<decltype(array)>>(static_cast<char*>(workspace) + end);
      end += (n * static_cast<std::int64_t>(sizeof(*array)) + 255) / 256 * 256;
    };
    folded = blocks > few;
    take(weighed, rows * blocks);
    take(folds, folded ? rows : 0);
    take(bases, folded ? rows * (blocks + 1) : 0);
    take(survivors, slots ? rows * blocks : 0);
    take(alive, slots ? rows * blocks * kThreads : 0);
    take(surplus, slots ? rows * draws : 0);
    take(copies, slots && folded ? rows * (blocks + 1) : 0);
    bytes = end;
  }
};

// One block of threads does a row of one block of items by itself.
bool is_alone(std::int64_t items, std::int64_t draws) {
  return items <= kBlock && draws <= kAlone;
}

// The log-weights of a block of items, updated first where they are to be. `n` are left from `first` on.
template <int threads, int items, bool reweight, typename Real>
__device__ void load_block(const Job& job, std::int64_t row, std::int64_t first, int n, Real (&run)[items]) {
  if constexpr (!reweight) {
    load_weights(static_cast<const Real*>(job.select.log_weights) + first, n, run);
  } else {
    const ReweightSelectArgs& a = job.reweight;
    const Real beta = static_cast<Real>(a.betas != nullptr ? a.betas[row] : a.beta);
    const Real previous_beta =
        static_cast<Real>(a.previous_betas != nullptr ? a.previous_betas[row] : a.previous_beta);
    Real values[items], previous_values[items], ratios[items];
    load_weights(static_cast<const Real*>(a.log_weights) + first, n, run);
    load_weights(static_cast<const Real*>(a.values) + first, n, values);
    load_weights(static_cast<const Real*>(a.previous_values) + first, n, previous_values);
    const bool ratio = a.log_ratio != nullptr;
    if (ratio)
      load_weights(static_cast<const Real*>(a.log_ratio) + first, n, ratios);
    FG_UNROLL
    for (int j = 0; j < items; ++j) {
      const Updated<Real, int> updated =
          ratio ? update_log_weights<Real, int, true>(run[j], values[j], previous_values[j], ratios[j], beta,
                                                      previous_beta)
                : update_log_weights<Real, int, false>(run[j], values[j], previous_values[j], Real{}, beta,
                                                       previous_beta);
      // Refused by the weighing, which finds the first. What is past the end is -inf, hence accepted.
      run[j] = updated.accepted ? updated.log_weights : static_cast<Real>(NAN);
    }
    store_run(static_cast<Real*>(a.new_log_weights) + first, n, run);
  }
}

__device__ bool resamples(const Job& job, const RowFold& row, double ess) {
  return !row.degenerate() && ess < job.ess_threshold * static_cast<double>(job.select.items);
}

// Writes what a row's weights come to, by one thread.
__device__ void write_results(const Job& job, std::int64_t r, const RowFold& row) {
  const SelectArgs& a = job.select;
  const double mean =
      row.degenerate() ? -static_cast<double>(INFINITY) : log_mean_weight(row.fold(), a.items);
  const double ess = row.degenerate() ? 0.0 : effective_sample_size(row.fold(), a.items);
  a.ess[r] = ess;
  if (row.degenerate())
    report(a.status, kDegenerate, r);
  if (job.reweight.groups == 0) {
    a.log_mean_weight[r] = mean;
  } else {
    const bool resampled = resamples(job, row, ess);
    job.reweight.resampled[r] = resampled;
    job.reweight.log_z_increment[r] = resampled || row.degenerate() ? mean : 0.0;
  }
}

__device__ bool is_drawn(const Job& job, const RowFold& row) {
  return !row.degenerate() && resamples(job, row, effective_sample_size(row.fold(), job.select.items));
}

// The same of a row whose results are written.
__device__ bool was_drawn(const Job& job, std::int64_t row) {
  return job.resampled != nullptr ? job.resampled[row] : job.select.ess[row] > 0;
}

// Moves a value along, or copies it.
__device__ void carry(const Movement& movement, std::int64_t row, std::int64_t target, std::int64_t source) {
  if (movement.bytes == 8)
    static_cast<std::int64_t*>(movement.target)[row + target] =
        static_cast<const std::int64_t*>(movement.source)[row + source];
  else if (movement.bytes == 4)
    static_cast<std::int32_t*>(movement.target)[row + target] =
        static_cast<const std::int32_t*>(movement.source)[row + source];
}

// Writes ancestors ids[0 .. n) of items from `first` of a row on, and moves what goes with them.
template <typename Real, int threads, int items>
__device__ void write_ancestors(const Job& job, Ids<threads, items>& ids, std::int64_t row,
                                std::int64_t first, int n, bool drawn, bool reweight) {
  const std::int64_t offset = row * job.select.items;
  for (int i = static_cast<int>(threadIdx.x); i < n; i += threads) {
    const std::int32_t ancestor = ids[i];
    job.select.ancestors[offset + first + i] = ancestor;
    if (reweight) {
      carry(job.values, offset, first + i, ancestor);
      carry(job.running, offset, first + i, ancestor);
      if (drawn)
        static_cast<Real*>(job.reweight.new_log_weights)[offset + first + i] = 0;
    }
  }
  // A row that is read keeps its place, so nobody writes it.
  const auto way_of = [&](std::int64_t i) -> Way {
    if (i >= n || ids[static_cast<int>(i)] == first + i)
      return {0, -1};
    return {offset + ids[static_cast<int>(i)], offset + first + i};
  };
  for (int t = 0; reweight && drawn && t < job.state_count; ++t) {
    for (std::int64_t v = 0; v < n * job.states[t].vectors; v += threads * kCopies)
      copy_stretch<threads>(job.states[t], v, way_of);
  }
}

// ---- Rows of one block of items ----

template <typename Real, int threads, int items, bool reweight>
__global__ void __launch_bounds__(threads, 1) do_row(Job job) {
  constexpr int kSize = threads * items;
  __shared__ Ids<threads, items> ids;
  const SelectArgs& a = job.select;
  const std::int64_t r = blockIdx.x;
  const int n = static_cast<int>(a.items), first = static_cast<int>(threadIdx.x) * items;
  Real run[items];
  load_block<threads, items, reweight>(job, r, r * a.items, n, run);
  std::int32_t invalid;
  const Weighed weighed = weigh_run<threads>(run, invalid);
  const bool leader = threadIdx.x == 0;
  if (leader && invalid != INT_MAX)
    report(a.status, kInvalidValue, r * a.items + invalid);
  RowFold row{};
  if (weighed.sum > 0) {
    BlockWeight block;
    block.exponent = weighed.exponent;
    block.sum = weighed.sum;
    block.squares = weighed.squares;
    const Fold fold = fold_blocks(&block, 1, sizeof block);
    const std::int64_t q = (fold.total + a.draws - 1) / a.draws;
    row = {fold.total,       fold.squares, weighed.largest, q, a.draws * q - fold.total,
           weighed.exponent, fold.scale,   fold.square_drop};
  }
  if (leader)
    write_results(job, r, row);
  const bool drawn = is_drawn(job, row);
  const Share share(row, a.random, r / a.parents, r % a.parents, a.draws, a.rule);
  std::int32_t start = 0, ends[items];
  if (drawn)
    find_ends<threads>(run, weighed.exponent, row.scale, std::int64_t{0}, row.largest, share, start, ends);
  if (!a.slots) {
    std::int32_t* ancestors = a.ancestors + r * a.draws;
    if (a.rule == Rule::argmax || !drawn) {
      for (std::int64_t i = threadIdx.x; i < a.draws; i += threads)
        ancestors[i] = drawn ? weighed.largest : static_cast<std::int32_t>(i % a.items);
    } else {
      fill_slots(ids, start, ends, 0, a.draws, 0, ancestors);
    }
    return;
  }
  std::int32_t own[items];
  FG_UNROLL
  for (int j = 0; j < items; ++j)
    own[j] = first + j;
  if (drawn) {
    unsigned alive;
    keep_survivors<threads>(start, ends, alive, 0);
    own_slots(ids, start, ends, 0, kSize);
    const int count = first + items <= n ? items : first < n ? n - first : 0;
    const unsigned dead = ~alive & ((1u << count) - 1);
    std::int32_t rank =
        scan_before<threads>(static_cast<std::int32_t>(__popc(dead)), std::int32_t{0}, Plus{});
    FG_UNROLL
    for (int j = 0; j < items; ++j) {
      if (dead >> j & 1)
        own[j] = ids[rank++];
    }
    __syncthreads();
  }
  FG_UNROLL
  for (int j = 0; j < items; ++j)
    ids[first + j] = own[j];
  __syncthreads();
  write_ancestors<Real>(job, ids, r, 0, n, drawn, reweight);
}

// ---- Rows of several ----

template <typename Real, bool reweight> __global__ void __launch_bounds__(kThreads) weigh(Job job, Layout w) {
  const std::int64_t r = blockIdx.x / w.blocks, b = blockIdx.x % w.blocks;
  const std::int64_t first = r * job.select.items + b * kBlock;
  const int n = at_most(job.select.items - b * kBlock, kThreads * kItems);
  Real run[kItems];
  load_block<kThreads, kItems, reweight>(job, r, first, n, run);
  std::int32_t invalid;
  const Weighed weighed = weigh_run<kThreads>(run, invalid);
  if (threadIdx.x == 0) {
    w.weighed[blockIdx.x] = weighed;
    if (invalid != INT_MAX)
      report(job.select.status, kInvalidValue, first + invalid);
  }
}

__global__ void __launch_bounds__(kFoldThreads) fold_many(Job job, Layout w) {
  const std::int64_t r = blockIdx.x;
  const Weighed* blocks = w.weighed + r * w.blocks;
  const RowFold row = fold_row<kFoldThreads>(blocks, w.blocks, job.select.draws);
  set_bases<kFoldThreads>(blocks, w.blocks, row, w.bases + r * (w.blocks + 1));
  if (threadIdx.x == 0) {
    w.folds[r] = row;
    write_results(job, r, row);
  }
}

// What a block of threads works on in `draw`.
template <typename Real> struct Draw {
  const Job& job;
  const Layout& w;
  const RowFold& row;
  const Share& share;
  const std::int64_t* bases;
  std::int64_t r;
  Tile& ids;

  __device__ std::int64_t slots_before(std::int64_t b) const { return share.slots_below(bases[b]); }

  // The block that owns a slot: the first that ends after it.
  __device__ std::int64_t block_at(std::int64_t slot) const {
    std::int64_t low = 0, high = w.blocks - 1;
    while (low < high) {
      const std::int64_t middle = (low + high) / 2;
      if (slots_before(middle + 1) > slot)
        high = middle;
      else
        low = middle + 1;
    }
    return low;
  }

  // The part of slots from .. until - 1 that block b of items owns; with order="slots" those slots hold the
  // surplus copies, as many as there are, and `own` notes who survives.
  __device__ void write(std::int64_t b, std::int64_t from, std::int64_t until, bool own) const {
    const SelectArgs& a = job.select;
    const Weighed& block = w.weighed[r * w.blocks + b];
    const std::int64_t first = b * kBlock;
    const int n = at_most(a.items - first, kThreads * kItems);
    const Real* x = static_cast<const Real*>(a.log_weights) + r * a.items + first;
    Real run[kItems];
    load_weights(x, n, run);
    std::int32_t start, ends[kItems];
    find_ends<kThreads>(run, block.exponent, block.sum > 0 ? shift_of(row, block) : -63, bases[b],
                        row.largest - first, share, start, ends);
    std::int32_t* out = a.ancestors + r * a.draws;
    if (a.slots) {
      unsigned alive;
      const std::int64_t begin = slots_before(b);
      keep_survivors<kThreads>(start, ends, alive, static_cast<std::int32_t>(begin));
      const std::int32_t living = reduce<kThreads>(static_cast<std::int32_t>(__popc(alive)), Plus{});
      if (own) {
        w.alive[(r * w.blocks + b) * kThreads + threadIdx.x] = static_cast<std::uint16_t>(alive);
        if (threadIdx.x == 0)
          w.survivors[r * w.blocks + b] = {static_cast<std::int32_t>(begin), living};
      }
      const std::int64_t end = slots_before(b + 1) - living;
      until = until < end ? until : end;
      out = w.surplus + r * a.draws;
    }
    fill_slots(ids, start, ends, from, until, static_cast<std::int32_t>(first), out);
  }
};

// Block i of a row's threads fills at most kOwn of the slots that block i of items owns. Of a heavier block
// of items, others fill the rest, a tile of slots each: as kOwn is more than a tile, a tile is part of one
// such rest at most, that of the block which owns its first slot.
template <typename Real, bool stratified>
__global__ void __launch_bounds__(kThreads, stratified ? 1 : 2) draw(Job job, Layout w, std::int64_t tiles) {
  __shared__ Tile ids;
  __shared__ std::int64_t few_bases[kFew + 1];
  const SelectArgs& a = job.select;
  const std::int64_t r = blockIdx.x / tiles, i = blockIdx.x % tiles;
  const Weighed* blocks = w.weighed + r * w.blocks;
  RowFold row;
  const std::int64_t* bases = few_bases;
  if (!w.folded) {
    row = fold_row<kThreads>(blocks, w.blocks, a.draws);
    set_bases<kThreads>(blocks, w.blocks, row, few_bases);
    if (i == 0 && threadIdx.x == 0)
      write_results(job, r, row);
  } else {
    row = w.folds[r];
    bases = w.bases + r * (w.blocks + 1);
  }
  const std::int64_t tile = i * kBlock, tile_end = tile + kBlock < a.draws ? tile + kBlock : a.draws;
  const bool drawn = is_drawn(job, row);
  if (!drawn || a.rule == Rule::argmax) {
    for (std::int64_t slot = tile + threadIdx.x; slot < tile_end && !a.slots; slot += kThreads)
      a.ancestors[r * a.draws + slot] = static_cast<std::int32_t>(drawn ? row.largest : slot % a.items);
    return;
  }
  Share share(row, a.random, r / a.parents, r % a.parents, a.draws, a.rule);
  share.stratified = stratified; // known to the compiler: a Philox an item takes many registers
  const Draw<Real> on{job, w, row, share, bases, r, ids};
  for (int part = i < w.blocks ? 0 : 1; part < 2; ++part) {
    const bool own = part == 0;
    if (!own && tile >= tile_end)
      return;
    const std::int64_t b = own ? i : on.block_at(tile);
    const std::int64_t begin = on.slots_before(b), end = on.slots_before(b + 1), rest = begin + kOwn;
    const std::int64_t from = own ? begin : tile > rest ? tile : rest;
    const std::int64_t last = own ? rest : tile_end, until = last < end ? last : end;
    if (from < until || (own && a.slots))
      on.write(b, from, until, own);
  }
}

// order="slots": surplus copies before each block, copies[0 .. blocks].
template <int threads>
__device__ void count_copies(const Survivors* survivors, std::int64_t blocks, std::int64_t draws,
                             std::int32_t* copies) {
  std::int32_t carried = 0;
  for (std::int64_t first = 0; first < blocks; first += threads) {
    const std::int64_t b = first + threadIdx.x;
    std::int32_t own = 0, all;
    if (b < blocks)
      own = (b + 1 < blocks ? survivors[b + 1].slot : static_cast<std::int32_t>(draws)) - survivors[b].slot -
            survivors[b].alive;
    const std::int32_t before = sum_before<threads>(own, all);
    if (b < blocks)
      copies[b] = carried + before;
    carried += all;
  }
  if (threadIdx.x == 0)
    copies[blocks] = carried;
  __syncthreads();
}

__global__ void __launch_bounds__(kFoldThreads) count_many(Job job, Layout w) {
  const std::int64_t r = blockIdx.x;
  if (!was_drawn(job, r))
    return;
  count_copies<kFoldThreads>(w.survivors + r * w.blocks, w.blocks, job.select.draws,
                             w.copies + r * (w.blocks + 1));
}

// order="slots": gives the dead slots their copies.
template <typename Real, bool reweight> __global__ void __launch_bounds__(kThreads) place(Job job, Layout w) {
  __shared__ Tile ids;
  __shared__ std::int32_t few_copies[kFew + 1];
  const SelectArgs& a = job.select;
  const std::int64_t r = blockIdx.x / w.blocks, i = blockIdx.x % w.blocks, block = r * w.blocks + i;
  const Survivors* survivors = w.survivors + r * w.blocks;
  const int n = at_most(a.items - i * kBlock, kThreads * kItems),
            first = static_cast<int>(threadIdx.x) * kItems;
  const std::int32_t id = static_cast<std::int32_t>(i * kBlock);
  const bool drawn = was_drawn(job, r);
  FG_UNROLL
  for (int j = 0; j < kItems; ++j)
    ids[first + j] = id + first + j;
  if (drawn) {
    const std::int32_t* copies = few_copies;
    if (!w.folded)
      count_copies<kThreads>(survivors, w.blocks, a.draws, few_copies);
    else
      copies = w.copies + r * (w.blocks + 1);
    const unsigned alive = w.alive[block * kThreads + threadIdx.x];
    const int count = first + kItems <= n ? kItems : first < n ? n - first : 0;
    const unsigned dead = ~alive & ((1u << count) - 1);
    // Of `slot` slots before, some are survivors and the rest surplus copies.
    std::int32_t rank =
        id - (survivors[i].slot - copies[i]) +
        scan_before<kThreads>(static_cast<std::int32_t>(__popc(dead)), std::int32_t{0}, Plus{});
    for (int j = 0; j < kItems; ++j) {
      if (dead >> j & 1) {
        std::int64_t low = 0, high = w.blocks - 1; // the block with the copy of this rank
        while (low < high) {
          const std::int64_t middle = (low + high) / 2;
          if (copies[middle + 1] > rank)
            high = middle;
          else
            low = middle + 1;
        }
        ids[first + j] = w.surplus[r * a.draws + survivors[low].slot + (rank - copies[low])];
        ++rank;
      }
    }
  }
  __syncthreads();
  write_ancestors<Real>(job, ids, r, id, n, drawn, reweight);
}

template <typename Real, bool reweight> void run_rows(const Job& job, StreamHandle stream) {
  const SelectArgs& a = job.select;
  if (is_alone(a.items, a.draws)) {
    if (a.items <= 128)
      launch(do_row<Real, 32, 4, reweight>, a.rows, 32, stream, job);
    else if (a.items <= 1024)
      launch(do_row<Real, 128, 8, reweight>, a.rows, 128, stream, job);
    else
      launch(do_row<Real, kThreads, kItems, reweight>, a.rows, kThreads, stream, job);
    return;
  }
  const Layout w(a.rows, a.items, a.draws, a.slots, a.workspace);
  const std::int64_t slot_tiles = (a.draws + kBlock - 1) / kBlock,
                     tiles = w.blocks > slot_tiles ? w.blocks : slot_tiles;
  launch(weigh<Real, reweight>, a.rows * w.blocks, kThreads, stream, job, w);
  if (w.folded)
    launch(fold_many, a.rows, kFoldThreads, stream, job, w);
  const bool stratified = a.rule == Rule::stratified && a.draws > 1;
  launch(stratified ? draw<Real, true> : draw<Real, false>, a.rows * tiles, kThreads, stream, job, w, tiles);
  if (!a.slots)
    return;
  if (w.folded)
    launch(count_many, a.rows, kFoldThreads, stream, job, w);
  launch(place<Real, reweight>, a.rows * w.blocks, kThreads, stream, job, w);
}

} // namespace

std::int64_t few = kFew;

std::int64_t rows_bytes(std::int64_t rows, std::int64_t items, std::int64_t draws, bool slots) {
  return is_alone(items, draws) ? 0 : Layout(rows, items, draws, slots, nullptr).bytes;
}

void run_rows(const Job& job, StreamHandle stream) {
  const bool reweight = job.reweight.groups > 0;
  if (job.select.is_double)
    reweight ? run_rows<double, true>(job, stream) : run_rows<double, false>(job, stream);
  else
    reweight ? run_rows<float, true>(job, stream) : run_rows<float, false>(job, stream);
}

} // namespace fg::cuda
