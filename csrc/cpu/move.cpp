// The ancestors are checked first, so that a wrong one leaves the targets untouched. Then, some hundred draws
// at a time, the rows to copy are listed, and each tensor is copied by that list: in place, where only dead
// slots are written, a branch a row and tensor would be missed every other time.
//
// Rows of many bytes are streamed where the targets are too large for the caches, and the sources of the
// next rows are fetched meanwhile, which no hardware foresees. At 2^17 rows of 1 KiB, half of them dead, that
// is 1.8 to 2.8 ms, from one process to the next, for 64 MB written and 40 MB of distinct rows read; one row
// ahead took 1.07 to 1.28 times as long.
#include "cpu/move.h"

#include "core/annotations.h"
#include "cpu/interrupt.h"
#include "cpu/stream.h"

namespace fg::FG_LEVEL {
namespace {

constexpr std::int64_t kListed = 512; // draws at a time; their list stays in the first cache
constexpr std::int64_t kLine = 64;
constexpr std::int64_t kLong = 4 * kLine; // bytes of a row from which streaming pays
constexpr std::int64_t kFetched = 4096;   // bytes of rows fetched ahead

struct Copy {
  std::int64_t from, to; // rows of a group
};

// Whether all is well with the ancestors [first, last) of one group, `mine`; else the first that is not.
struct Finding {
  Code code = Code::ok;
  std::int64_t at = 0;
};
template <typename Index>
Finding check(const Index* mine, std::int64_t first, std::int64_t last, std::int64_t rows, bool in_place) {
  // The comparisons are gathered without a branch, and the culprit is sought only where there is one.
  const auto outside = [&](std::int64_t i) {
    return static_cast<std::uint64_t>(mine[i]) >= static_cast<std::uint64_t>(rows);
  };
  bool any = false;
  for (std::int64_t i = first; i < last; ++i)
    any |= outside(i);
  for (std::int64_t i = first; any && i < last; ++i) {
    if (outside(i))
      return {Code::out_of_range, i};
  }
  const auto displaced = [&](std::int64_t i) { return mine[mine[i]] != mine[i]; };
  for (std::int64_t i = first; in_place && i < last; ++i)
    any |= displaced(i);
  for (std::int64_t i = first; any && i < last; ++i) {
    if (displaced(i))
      return {Code::invalid_value, i};
  }
  return {};
}

// A row of at least one register and at most a few: whole registers, the last of them overlapping.
FG_HD void copy_short(char* to, const char* from, std::int64_t n) {
  for (std::int64_t i = 0; i + kRegister < n; i += kRegister)
    store(to + i, load<Floats>(from + i));
  store(to + n - kRegister, load<Floats>(from + n - kRegister));
}

FG_HD void stream_row(char* to, const char* from, std::int64_t n, const char* next) {
  std::int64_t i = -reinterpret_cast<std::intptr_t>(to) & (kLine - 1);
  __builtin_memcpy(to, from, static_cast<std::size_t>(i));
  for (; i + kLine <= n; i += kLine) {
    __builtin_prefetch(next + i);
#pragma GCC unroll 4
    for (std::int64_t k = 0; k < kLine; k += kRegister)
      stream(to + i + k, load<Floats>(from + i + k));
  }
  __builtin_memcpy(to + i, from + i, static_cast<std::size_t>(n - i));
}

// Bytes: the size of a row where it is known, else 0.
template <int Bytes>
FG_HD void copy_rows(const char* source, char* target, const Copy* copies, std::int64_t count,
                     std::int64_t row_bytes, bool streamed) {
  const std::int64_t n = Bytes ? Bytes : row_bytes;
  if (!Bytes && streamed && n >= kLong) {
    const std::int64_t ahead = n < kFetched ? kFetched / n : 1;
    for (std::int64_t i = 0; i < count; ++i)
      stream_row(target + copies[i].to * n, source + copies[i].from * n, n,
                 source + copies[i + ahead < count ? i + ahead : count - 1].from * n);
  } else if (!Bytes && n >= kRegister && n < kLong) {
    for (std::int64_t i = 0; i < count; ++i)
      copy_short(target + copies[i].to * n, source + copies[i].from * n, n);
  } else {
    for (std::int64_t i = 0; i < count; ++i)
      __builtin_memcpy(target + copies[i].to * n, source + copies[i].from * n, static_cast<std::size_t>(n));
  }
}

void copy_rows(const char* source, char* target, const Copy* copies, std::int64_t count, std::int64_t n,
               bool streamed) {
  switch (n) {
  case 1:
    return copy_rows<1>(source, target, copies, count, n, streamed);
  case 2:
    return copy_rows<2>(source, target, copies, count, n, streamed);
  case 4:
    return copy_rows<4>(source, target, copies, count, n, streamed);
  case 8:
    return copy_rows<8>(source, target, copies, count, n, streamed);
  case 16:
    return copy_rows<16>(source, target, copies, count, n, streamed);
  default:
    return copy_rows<0>(source, target, copies, count, n, streamed);
  }
}

// Calls visit(group, first, last) for the parts of draws [begin, end) of all that lie in one group each.
template <typename Visit>
void each_group(const MoveArgs& a, std::int64_t begin, std::int64_t end, Visit visit) {
  for (std::int64_t from = begin; from < end;) {
    const std::int64_t g = from / a.draws, first = from - g * a.draws;
    const std::int64_t last = end - g * a.draws < a.draws ? end - g * a.draws : a.draws;
    visit(g, first, last);
    from = g * a.draws + last;
  }
}

template <typename Index> Status move_by(const MoveArgs& a, const Index* ancestors) {
  std::int64_t bytes = 0;
  for (std::int64_t k = 0; k < a.tensors; ++k)
    bytes += a.row_bytes[k];
  const std::int64_t total = a.groups * a.draws;
  const bool streamed = total * bytes >= kStreamed;
  const int threads = total * (bytes + 8) < (1 << 17) ? 1 : a.threads;
  constexpr std::int64_t kNone = INT64_MAX;
  std::int64_t outside = kNone, displaced = kNone;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(min : outside, displaced)
  for (int t = 0; t < threads; ++t) {
    each_group(a, total * t / threads, total * (t + 1) / threads,
               [&](std::int64_t g, std::int64_t first, std::int64_t last) {
                 const Finding f = check(ancestors + g * a.draws, first, last, a.rows, a.in_place);
                 std::int64_t& least = f.code == Code::out_of_range ? outside : displaced;
                 if (f.code != Code::ok && g * a.draws + f.at < least)
                   least = g * a.draws + f.at;
               });
  }
  if (outside != kNone)
    return {Code::out_of_range, outside};
  if (displaced != kNone)
    return {Code::invalid_value, displaced};
  Interrupt interrupt;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int t = 0; t < threads; ++t) {
    each_group(a, total * t / threads, total * (t + 1) / threads,
               [&](std::int64_t g, std::int64_t first, std::int64_t last) {
                 const Index* mine = ancestors + g * a.draws;
                 // In place, half a move would leave rows that belong to no state.
                 for (std::int64_t from = first; from < last && (a.in_place || !interrupt.requested());
                      from += kListed) {
                   const std::int64_t end = from + kListed < last ? from + kListed : last;
                   Copy copies[kListed];
                   std::int64_t count = 0;
                   for (std::int64_t i = from; i < end; ++i) {
                     copies[count] = {static_cast<std::int64_t>(mine[i]), i};
                     count += !a.in_place || mine[i] != i;
                   }
                   for (std::int64_t k = 0; k < a.tensors; ++k) {
                     const std::int64_t n = a.row_bytes[k];
                     if (n == 0) // perhaps without an address
                       continue;
                     copy_rows(static_cast<const char*>(a.sources[k]) + g * a.rows * n,
                               static_cast<char*>(a.targets[k]) + g * a.draws * n, copies, count, n,
                               streamed);
                   }
                 }
               });
    if (streamed)
      finish_streams();
  }
  return !a.in_place && interrupt.requested() ? Status{Code::interrupted, -1} : Status{};
}

} // namespace

Status move(const MoveArgs& a) {
  return a.wide_ancestors ? move_by(a, static_cast<const std::int64_t*>(a.ancestors))
                          : move_by(a, static_cast<const std::int32_t*>(a.ancestors));
}

} // namespace fg::FG_LEVEL
