// A 128-bit hash a row, then one open-addressing table a thread: thread t owns the rows whose hash falls in
// its part and meets them in increasing order, so the first occurrence wins whatever the number of threads.
// 64 bits of the hash place a row, 32 others are kept in the table to pass over strangers; equal rows are
// settled by comparing their bytes, so the answer never rests on the hash.
//
// At 2^17 rows of 76 bytes the hash reads 10 MB once; the table is probed out of order, and rows are taken in
// batches: their table entries are fetched ahead, and then the rows that they are to be compared with. All of
// it goes stretch by stretch, so that a row is compared while it is still in the caches from being hashed.
#include "cpu/unique.h"

#include <cstring>

#include "core/annotations.h"
#include "cpu/interrupt.h"
#include "cpu/lanes.h"
#include "cpu/scratch.h"

namespace fg::FG_LEVEL {
namespace {

struct Hash {
  std::uint64_t place, tag;
};

__extension__ typedef unsigned __int128 Wide;

FG_HD std::uint64_t word_at(const unsigned char* p) {
  std::uint64_t w;
  std::memcpy(&w, p, 8);
  return w;
}

FG_HD std::uint64_t short_word(const unsigned char* p, std::int64_t n) {
  std::uint64_t w = 0;
  for (std::int64_t i = 0; i < n; ++i)
    w |= static_cast<std::uint64_t>(p[i]) << (8 * i);
  return w;
}

// A 64 x 64 -> 128 bit product with its halves folded.
FG_HD std::uint64_t fold(std::uint64_t x, std::uint64_t y) {
  const Wide product = static_cast<Wide>(x) * y;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
}

// Four independent chains of folded products, 16 bytes a step each (one chain would wait for its products);
// what is left over goes to the chains in turn, the last 16 bytes overlapping what came before.
FG_HD Hash hash_row(const unsigned char* p, std::int64_t n) {
  constexpr std::uint64_t k[4] = {0x9AE16A3B2F90404Full, 0xC3A5C85C97CB3127ull, 0xE7037ED1A0B428DBull,
                                  0x8EBC6AF09C88C6E3ull};
  std::uint64_t s[4] = {k[3] ^ static_cast<std::uint64_t>(n), k[2], k[1], k[0]};
  std::int64_t i = 0;
  for (; i + 64 <= n; i += 64)
    for (int c = 0; c < 4; ++c)
      s[c] = fold(word_at(p + i + 16 * c) ^ s[c], word_at(p + i + 16 * c + 8) ^ k[c]);
  int c = 0;
  for (; i + 16 <= n; i += 16, ++c)
    s[c] = fold(word_at(p + i) ^ s[c], word_at(p + i + 8) ^ k[c]);
  if (n < 8)
    s[3] = fold(short_word(p, n) ^ s[3], k[3]);
  else if (n < 16)
    s[3] = fold(word_at(p) ^ s[3], word_at(p + n - 8) ^ k[3]);
  else if (i < n)
    s[3] = fold(word_at(p + n - 16) ^ s[3], word_at(p + n - 8) ^ k[3]);
  const std::uint64_t a = fold(s[0] ^ k[1], s[1] ^ k[2]), b = fold(s[2] ^ k[3], s[3] ^ k[0]);
  return {fold(a ^ k[0], b ^ k[1]), fold(a ^ k[2], b ^ k[3])};
}

// Whether n bytes are equal. A register at a time without a branch between them: rows that get here are equal
// but for a collision, so memcmp's care to stop at the first difference is wasted.
FG_HD bool equal(const unsigned char* a, const unsigned char* b, std::int64_t n) {
  constexpr std::int64_t kRegister = sizeof(ULongs);
  if (n < kRegister)
    return std::memcmp(a, b, static_cast<std::size_t>(n)) == 0;
  ULongs differ = load<ULongs>(a + n - kRegister) ^ load<ULongs>(b + n - kRegister);
  for (std::int64_t i = 0; i + kRegister <= n; i += kRegister)
    differ |= load<ULongs>(a + i) ^ load<ULongs>(b + i);
  std::uint64_t any = 0;
  for (int i = 0; i < kWideLanes; ++i)
    any |= differ[i];
  return any == 0;
}

struct Entry {
  std::uint32_t tag;
  std::uint32_t row_plus_one; // 0: free
};
constexpr std::int64_t kBatch = 64;
constexpr std::int64_t kMostFetched = 1024; // bytes of a row; the rest follows by itself
constexpr std::int64_t kStretch = 1 << 20;  // bytes of rows
constexpr std::int64_t kMostRows = 0xFFFFFFFE;

struct Table {
  Entry* entries;
  std::uint64_t size_mask;
};

// The first row equal to row `i`, itself if there is none before.
FG_HD std::int64_t find(const Table& table, const UniqueArgs& a, std::int64_t i, Hash h) {
  const auto* rows = static_cast<const unsigned char*>(a.rows);
  const std::uint32_t tag = static_cast<std::uint32_t>(h.tag);
  for (std::uint64_t at = h.place & table.size_mask;; at = (at + 1) & table.size_mask) {
    Entry& entry = table.entries[at];
    if (entry.row_plus_one == 0) {
      entry = {tag, static_cast<std::uint32_t>(i + 1)};
      return i;
    }
    const std::int64_t other = static_cast<std::int64_t>(entry.row_plus_one) - 1;
    if (entry.tag == tag && equal(rows + other * a.row_bytes, rows + i * a.row_bytes, a.row_bytes))
      return other;
  }
}

// Likewise, by place and tag alone: the row that is returned must still be compared.
FG_HD std::int64_t find_alike(const Table& table, std::int64_t i, Hash h) {
  const std::uint32_t tag = static_cast<std::uint32_t>(h.tag);
  for (std::uint64_t at = h.place & table.size_mask;; at = (at + 1) & table.size_mask) {
    Entry& entry = table.entries[at];
    if (entry.row_plus_one == 0)
      entry = {tag, static_cast<std::uint32_t>(i + 1)};
    if (entry.tag == tag)
      return static_cast<std::int64_t>(entry.row_plus_one) - 1;
  }
}

// Writes the first equal row of those of rows [first, last) that are of part `part` of `parts` to inverse.
// Rows that look alike are fetched for a batch together and then compared, in order; one that proves
// different is looked for again, and so are those equal to it, which come later and look like the same row.
FG_HD void resolve(const Table& table, const UniqueArgs& a, const Hash* hashes, int part, int parts,
                   std::int64_t first, std::int64_t last) {
  const auto* rows = static_cast<const unsigned char*>(a.rows);
  std::int64_t batch[kBatch];
  const std::int64_t fetched = a.row_bytes < kMostFetched ? a.row_bytes : kMostFetched;
  for (std::int64_t i = first; i < last;) {
    std::int64_t n = 0;
    for (; i < last && n < kBatch; ++i) {
      batch[n] = i;
      n +=
          (hashes[i].tag >> 32) * static_cast<std::uint64_t>(parts) >> 32 == static_cast<std::uint64_t>(part);
      __builtin_prefetch(table.entries + (hashes[i].place & table.size_mask), 1);
    }
    for (std::int64_t k = 0; k < n; ++k) {
      const std::int64_t alike = find_alike(table, batch[k], hashes[batch[k]]);
      a.inverse[batch[k]] = alike;
      for (std::int64_t at = 0; at < fetched && alike != batch[k]; at += 64)
        __builtin_prefetch(rows + alike * a.row_bytes + at);
    }
    for (std::int64_t k = 0; k < n; ++k) {
      const std::int64_t row = batch[k], alike = a.inverse[row];
      if (alike != row && !equal(rows + alike * a.row_bytes, rows + row * a.row_bytes, a.row_bytes))
        a.inverse[row] = find(table, a, row, hashes[row]);
    }
  }
}

// Numbers the first rows in order and turns inverse from rows to numbers.
void number(const UniqueArgs& a) {
  std::int64_t distinct = 0;
  for (std::int64_t i = 0; i < a.count; ++i) {
    const std::int64_t first = a.inverse[i];
    if (first == i) {
      a.representatives[distinct] = i;
      a.counts[distinct] = 1;
      a.inverse[i] = distinct++;
    } else {
      const std::int64_t id = a.inverse[first]; // a row before this one, so already a number
      a.inverse[i] = id;
      ++a.counts[id];
    }
  }
  *a.distinct = distinct;
}

} // namespace

Status unique(const UniqueArgs& a) {
  *a.distinct = 0;
  if (a.count == 0)
    return {};
  if (a.count > kMostRows)
    return {Code::out_of_range, a.count};
  const bool small = a.count * (a.row_bytes + 40) < (1 << 18);
  const int parts = small ? 1 : a.threads;
  std::uint64_t size = 8;
  while (size < 2 * static_cast<std::uint64_t>(a.count) / static_cast<std::uint64_t>(parts) + 8)
    size *= 2;
  // A part may get more than its share of the rows (all of them, under a weak hash), hence room for them all.
  if (parts > 1 && size <= static_cast<std::uint64_t>(a.count))
    while (size <= static_cast<std::uint64_t>(a.count))
      size *= 2;

  const std::size_t hash_bytes = static_cast<std::size_t>(a.count) * sizeof(Hash),
                    table_bytes = size * sizeof(Entry);
  void* const scratch =
      borrow_scratch(static_cast<std::int64_t>(hash_bytes + static_cast<std::size_t>(parts) * table_bytes));
  const bool complete = scratch != nullptr;
  auto* hashes = static_cast<Hash*>(scratch);
  auto* entries = reinterpret_cast<Entry*>(hashes + a.count);
  Interrupt interrupt;
  if (complete) {
    const auto* rows = static_cast<const unsigned char*>(a.rows);
    const std::int64_t stretch = kStretch / a.row_bytes + kBatch;
#pragma omp parallel num_threads(parts)
    {
#pragma omp for schedule(static)
      for (int part = 0; part < parts; ++part)
        std::memset(entries + static_cast<std::uint64_t>(part) * size, 0, table_bytes);
      for (std::int64_t first = 0; first < a.count; first += stretch) {
        const std::int64_t last = first + stretch < a.count ? first + stretch : a.count;
#pragma omp for schedule(static)
        for (std::int64_t from = first; from < last; from += kBatch) {
          if (interrupt.requested())
            continue;
          const std::int64_t end = from + kBatch < last ? from + kBatch : last;
          for (std::int64_t i = from; i < end; ++i) {
            const Hash h = hash_row(rows + i * a.row_bytes, a.row_bytes);
            hashes[i] = {h.place & a.hash_mask, h.tag & a.hash_mask};
          }
        }
#pragma omp for schedule(static) nowait
        for (int part = 0; part < parts; ++part)
          if (!interrupt.requested())
            resolve(Table{entries + static_cast<std::uint64_t>(part) * size, size - 1}, a, hashes, part,
                    parts, first, last);
      }
    }
    if (!interrupt.requested())
      number(a);
  }
  return_scratch(scratch);
  if (interrupt.requested())
    return {Code::interrupted, -1};
  return complete ? Status{} : Status{Code::out_of_memory, -1};
}

} // namespace fg::FG_LEVEL
