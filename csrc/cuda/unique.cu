// An open-addressing table of 64-bit entries: 32 bits of a row's hash above its index. Rows are hashed and
// put in by one launch: whoever finds an entry free takes it, and one that finds its own tag compares the
// bytes and, where they are equal, leaves the least index in the entry. So an entry's kind of row never
// changes, and its index is that of the first row in the end, whatever the order of threads. Then the first
// rows are numbered, a tile a block, by counting before and after (two launches), and a last one looks every
// row's number up.
//
// Rows of up to kShort bytes are a thread's each; a warp's rows share the lines that it reads. Longer ones
// are read by all 32 threads of a small block.
#include "cuda/unique.h"

#include "core/integer.h"
#include "cuda/device.h"

namespace fg::cuda {
namespace {

using Entry = unsigned long long;
constexpr Entry kFree = ~Entry{0};
constexpr int kThreads = 256, kItems = 8, kWarp = 32;
constexpr std::int64_t kTile = kThreads * kItems;
constexpr std::int64_t kShort = 256;

struct Layout {
  std::uint64_t size; // of the table, a power of two: at most half of it is taken
  Entry* table;
  std::uint32_t* places;  // [count] where in the table a row's kind stands
  std::uint32_t* firsts;  // [count] the first row of its kind
  std::uint32_t* numbers; // [count], of first rows
  std::uint32_t* tiles;   // [tiles] first rows in it
  std::int64_t bytes;

  Layout(std::int64_t count, void* workspace) {
    for (size = 64; size < 2 * static_cast<std::uint64_t>(count);)
      size *= 2;
    std::int64_t end = 0;
    const auto take = [&](auto*& array, std::int64_t n) {
      array = reinterpret_cast<std::remove_reference_t<decltype(array)>>(static_cast<char*>(workspace) + end);
      end += (n * static_cast<std::int64_t>(sizeof(*array)) + 255) / 256 * 256;
    };
    take(table, static_cast<std::int64_t>(size));
    take(places, count);
    take(firsts, count);
    take(numbers, count);
    take(tiles, (count + kTile - 1) / kTile);
    bytes = end;
  }
};

struct Hash {
  std::uint64_t place, tag;

  FG_HD Hash operator+(const Hash& other) const { return {place + other.place, tag + other.tag}; }
};

// A 64 x 64 -> 128 bit product with its halves folded.
FG_HD std::uint64_t fold(std::uint64_t x, std::uint64_t y) {
  return (x * y) ^ mulhi64(x, y);
}

// Words are mixed with their position and summed, so that threads may share a row.
FG_HD Hash mix(std::uint64_t word, std::int64_t position) {
  const std::uint64_t at = static_cast<std::uint64_t>(position + 1) * 0x9E3779B97F4A7C15ull;
  return {fold(word ^ 0x9AE16A3B2F90404Full, at ^ 0xC3A5C85C97CB3127ull),
          fold(word ^ 0xE7037ED1A0B428DBull, at ^ 0x8EBC6AF09C88C6E3ull)};
}

// Threads 0 .. share - 1 read a row in turns. What they found is put together by `together`.
template <typename Word, int share> struct Reader {
  std::int64_t words;

  __device__ Hash hash(const Word* row) const {
    Hash h{};
    for (std::int64_t i = share == 1 ? 0 : threadIdx.x; i < words; i += share)
      h = h + mix(static_cast<std::uint64_t>(row[i]), i);
    if constexpr (share > 1)
      h = reduce<share>(h, Plus{});
    return {fold(h.place ^ h.tag, 0x9AE16A3B2F90404Full),
            fold(h.tag + 0xE7037ED1A0B428DBull, 0xC3A5C85C97CB3127ull)};
  }
  __device__ bool equal(const Word* a, const Word* b) const {
    int same = 1;
    for (std::int64_t i = share == 1 ? 0 : threadIdx.x; i < words && same; i += share)
      same = a[i] == b[i];
    if constexpr (share > 1)
      same = reduce<share>(same, Smaller{});
    return same != 0;
  }
};

template <typename Word, int share>
__global__ void __launch_bounds__(share == 1 ? kThreads : share) insert(UniqueArgs a, Layout w) {
  const std::int64_t row = share == 1 ? static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x
                                      : static_cast<std::int64_t>(blockIdx.x);
  if (row >= a.count)
    return;
  const Reader<Word, share> reader{a.row_bytes / static_cast<std::int64_t>(sizeof(Word))};
  const Word* rows = static_cast<const Word*>(a.rows);
  const Word* own = rows + row * reader.words;
  const Hash h = reader.hash(own);
  const bool leader = share == 1 || threadIdx.x == 0;
  const Entry entry = (h.tag & a.hash_mask) << 32 | static_cast<Entry>(row);
  std::uint64_t at = h.place & a.hash_mask & (w.size - 1);
  for (;; at = (at + 1) & (w.size - 1)) {
    Entry found = 0;
    if (leader) {
      // Most rows find an entry taken, and reading contends less.
      found = *const_cast<const volatile Entry*>(w.table + at);
      if (found == kFree)
        found = atomicCAS(w.table + at, kFree, entry);
    }
    if constexpr (share > 1)
      found = broadcast(found);
    if (found == kFree)
      break;
    if (found >> 32 == entry >> 32 && reader.equal(rows + (found & 0xFFFFFFFFu) * reader.words, own)) {
      if (leader && entry < found)
        atomicMin(w.table + at, entry);
      break;
    }
  }
  if (leader)
    w.places[row] = static_cast<std::uint32_t>(at);
}

// Tile by tile, a thread's rows being consecutive.
__global__ void __launch_bounds__(kThreads) count_firsts(UniqueArgs a, Layout w) {
  std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kTile + threadIdx.x;
  int firsts = 0;
  for (int j = 0; j < kItems && row < a.count; ++j, row += kThreads) {
    const std::uint32_t first = static_cast<std::uint32_t>(w.table[w.places[row]]);
    w.firsts[row] = first;
    firsts += first == row;
    a.representatives[row] = a.counts[row] = 0;
  }
  firsts = reduce<kThreads>(firsts, Plus{});
  if (threadIdx.x == 0)
    w.tiles[blockIdx.x] = static_cast<std::uint32_t>(firsts);
}

__global__ void __launch_bounds__(kThreads) number_firsts(UniqueArgs a, Layout w) {
  std::int64_t before = 0;
  for (std::int64_t t = threadIdx.x; t < blockIdx.x; t += kThreads)
    before += w.tiles[t];
  before = reduce<kThreads>(before, Plus{});
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.x) * kTile + threadIdx.x * kItems;
  int own = 0, all;
  for (int j = 0; j < kItems; ++j)
    own += first_row + j < a.count && w.firsts[first_row + j] == first_row + j;
  std::int64_t number = before + sum_before<kThreads>(own, all);
  for (int j = 0; j < kItems; ++j) {
    const std::int64_t row = first_row + j;
    if (row < a.count && w.firsts[row] == row) {
      a.representatives[number] = row;
      w.numbers[row] = static_cast<std::uint32_t>(number++);
    }
  }
  if (threadIdx.x == 0 && blockIdx.x == gridDim.x - 1)
    *a.distinct = before + all;
}

__global__ void __launch_bounds__(kThreads) look_up(UniqueArgs a, Layout w) {
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= a.count)
    return;
  const std::uint32_t number = w.numbers[w.firsts[row]];
  a.inverse[row] = number;
  atomicAdd(reinterpret_cast<unsigned long long*>(a.counts) + number, 1ull);
}

template <typename Word> void run_insert(const UniqueArgs& a, const Layout& w, StreamHandle stream) {
  if (a.row_bytes <= kShort)
    launch(insert<Word, 1>, (a.count + kThreads - 1) / kThreads, kThreads, stream, a, w);
  else
    launch(insert<Word, kWarp>, a.count, kWarp, stream, a, w);
}

} // namespace

std::int64_t unique_bytes(std::int64_t count) {
  return Layout(count, nullptr).bytes;
}

void unique(const UniqueArgs& args, StreamHandle stream) {
  const Layout w(args.count, args.workspace);
  const std::int64_t tiles = (args.count + kTile - 1) / kTile;
  const auto bits = reinterpret_cast<std::uintptr_t>(args.rows) | static_cast<std::uintptr_t>(args.row_bytes);
  clear(w.table, 0xFF, static_cast<std::int64_t>(w.size * sizeof(Entry)), stream);
  if (bits % 8 == 0)
    run_insert<std::uint64_t>(args, w, stream);
  else if (bits % 4 == 0)
    run_insert<std::uint32_t>(args, w, stream);
  else
    run_insert<std::uint8_t>(args, w, stream);
  launch(count_firsts, tiles, kThreads, stream, args, w);
  launch(number_firsts, tiles, kThreads, stream, args, w);
  launch(look_up, (args.count + kThreads - 1) / kThreads, kThreads, stream, args, w);
}

} // namespace fg::cuda
