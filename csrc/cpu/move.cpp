// A pass over the ancestors alone first, so that a wrong one leaves the targets untouched; then one pass a
// tensor, the loop specialised for rows of a few bytes (values, log-weights), where a call of memcpy would be
// the whole cost.
#include "cpu/move.h"

#include "core/annotations.h"
#include "cpu/interrupt.h"

namespace fg::FG_LEVEL {
namespace {

// The comparisons are gathered without a branch, and the culprit is sought only where there is one.
template <typename Index> Status check(const MoveArgs& a, const Index* ancestors) {
  const std::int64_t total = a.groups * a.draws;
  const std::uint64_t rows = static_cast<std::uint64_t>(a.rows);
  std::uint64_t outside = 0;
  for (std::int64_t i = 0; i < total; ++i)
    outside |= static_cast<std::uint64_t>(static_cast<std::uint64_t>(ancestors[i]) >= rows);
  for (std::int64_t i = 0; outside && i < total; ++i) {
    if (static_cast<std::uint64_t>(ancestors[i]) >= rows)
      return {Code::out_of_range, i};
  }
  for (std::int64_t g = 0; a.in_place && g < a.groups; ++g) {
    const Index* mine = ancestors + g * a.draws;
    for (std::int64_t i = 0; i < a.draws; ++i) {
      if (mine[mine[i]] != mine[i])
        return {Code::invalid_value, g * a.draws + i};
    }
  }
  return {};
}

// Targets [first, last) of one group, given by the group's own source, target and ancestors. Bytes: the size
// of a row where it is known, else 0.
template <int Bytes, typename Index>
FG_HD void gather(const char* source, char* target, const Index* ancestors, std::int64_t first,
                  std::int64_t last, std::int64_t row_bytes, bool in_place) {
  const std::int64_t n = Bytes ? Bytes : row_bytes;
  for (std::int64_t i = first; i < last; ++i) {
    if (in_place && ancestors[i] == i)
      continue;
    __builtin_memcpy(target + i * n, source + ancestors[i] * n, static_cast<std::size_t>(n));
  }
}

constexpr std::int64_t kRowsTogether = 4096; // between two looks for an interrupt

template <typename Index> Status move_by(const MoveArgs& a, const Index* ancestors) {
  const Status status = check(a, ancestors);
  if (status.code != Code::ok)
    return status;
  std::int64_t bytes = 0;
  for (std::int64_t k = 0; k < a.tensors; ++k)
    bytes += a.row_bytes[k];
  const std::int64_t total = a.groups * a.draws;
  const int threads = total * (bytes + 8) < (1 << 17) ? 1 : a.threads;
  Interrupt interrupt;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int t = 0; t < threads; ++t) {
    const std::int64_t begin = total * t / threads, end = total * (t + 1) / threads;
    // In place, half a move would leave rows that belong to no state.
    for (std::int64_t from = begin; from < end && (a.in_place || !interrupt.requested());) {
      const std::int64_t g = from / a.draws;
      const std::int64_t first = from - g * a.draws;
      std::int64_t last = end - g * a.draws < a.draws ? end - g * a.draws : a.draws;
      last = first + kRowsTogether < last ? first + kRowsTogether : last;
      for (std::int64_t k = 0; k < a.tensors; ++k) {
        const std::int64_t n = a.row_bytes[k];
        const char* source = static_cast<const char*>(a.sources[k]) + g * a.rows * n;
        char* target = static_cast<char*>(a.targets[k]) + g * a.draws * n;
        const Index* mine = ancestors + g * a.draws;
        switch (n) {
        case 4:
          gather<4>(source, target, mine, first, last, n, a.in_place);
          break;
        case 8:
          gather<8>(source, target, mine, first, last, n, a.in_place);
          break;
        case 16:
          gather<16>(source, target, mine, first, last, n, a.in_place);
          break;
        default:
          gather<0>(source, target, mine, first, last, n, a.in_place);
        }
      }
      from = g * a.draws + last;
    }
  }
  return !a.in_place && interrupt.requested() ? Status{Code::interrupted, -1} : Status{};
}

} // namespace

Status move(const MoveArgs& a) {
  return a.wide_ancestors ? move_by(a, static_cast<const std::int64_t*>(a.ancestors))
                          : move_by(a, static_cast<const std::int32_t*>(a.ancestors));
}

} // namespace fg::FG_LEVEL
