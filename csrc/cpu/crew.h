// How the threads of a call are put to work on its rows, for one SIMD level.
#pragma once

#include <cstdint>

#include <omp.h>

#include "core/seed.h"
#include "cpu/row.h"
#include "cpu/scratch.h"

namespace fg::FG_LEVEL {
namespace {

constexpr std::int64_t kWorthAThread = 16384; // items below which waking a thread costs more than it brings
constexpr std::int64_t kStack = 65536;        // bytes of workspace that need no allocation

// Memory of `bytes` bytes: the caller's stack where it suffices, else the heap.
struct Memory {
  void* data;
  void* heap = nullptr;

  Memory(void* stack, std::int64_t bytes) : data(stack) {
    if (bytes > kStack)
      data = heap = borrow_scratch(bytes);
  }
  Memory(const Memory&) = delete;
  ~Memory() { return_scratch(heap); }
};

// The least value that threads report, or -1.
inline void keep_first(std::int64_t& first, std::int64_t found) {
  if (found >= 0 && (first < 0 || found < first))
    first = found;
}

// Calls visit(team, row, workspace) for every row: large rows one after the other by all threads, small ones
// by a thread each. `visit` returns a Status on every thread of the team. Before a small row, visit_some(row,
// last) may do some of [row, last) its own way, without complaint about any; it returns how many. `more`:
// what a row costs beyond its items and draws.
template <typename Visit, typename VisitSome>
Status each_row(std::int64_t rows, std::int64_t items, std::int64_t draws, Rule rule, bool slots, int threads,
                Visit visit, VisitSome visit_some, std::int64_t more = 0) {
  const std::int64_t work = rows * (items + draws + more);
  std::int64_t wanted = work / kWorthAThread;
  wanted = wanted < threads ? wanted : threads;
  const bool together = wanted > 1 && (rows < wanted || (items > 16 * kBlock && rows < 8 * wanted));
  std::int64_t invalid = -1, degenerate = -1;
  bool lacking = false;
  const auto note = [&](const Status& status) {
    if (status.code == Code::invalid_value)
      keep_first(invalid, status.index);
    if (status.code == Code::degenerate)
      keep_first(degenerate, status.index);
  };
  const auto share = [&](const Team& crew) {
    alignas(64) char stack[kStack];
    const Memory memory(stack, workspace_bytes(items, draws, rule, slots, 1));
    std::int64_t own_invalid = -1, own_degenerate = -1;
    if (memory.data == nullptr) {
#pragma omp atomic write
      lacking = true;
      return;
    }
    const std::int64_t last = crew.last(rows);
    for (std::int64_t r = crew.first(rows); r < last; ++r) {
      if (const std::int64_t done = visit_some(r, last)) {
        r += done - 1;
        continue;
      }
      const Status status = visit(Team{}, r, (last - r) * draws, memory.data);
      if (status.code == Code::invalid_value)
        keep_first(own_invalid, status.index);
      if (status.code == Code::degenerate)
        keep_first(own_degenerate, status.index);
    }
#pragma omp critical(fastguide_each_row)
    {
      keep_first(invalid, own_invalid);
      keep_first(degenerate, own_degenerate);
    }
  };
  if (wanted <= 1) {
    share(Team{});
  } else if (!together) {
#pragma omp parallel num_threads(static_cast<int>(wanted < rows ? wanted : rows))
    share(Team{omp_get_thread_num(), omp_get_num_threads()});
  } else {
    alignas(64) char stack[kStack];
    const Memory memory(stack, workspace_bytes(items, draws, rule, slots, static_cast<int>(wanted)));
    lacking = memory.data == nullptr;
    if (!lacking) {
#pragma omp parallel num_threads(static_cast<int>(wanted))
      {
        const Team team{omp_get_thread_num(), omp_get_num_threads()};
        for (std::int64_t r = 0; r < rows; ++r) {
          const Status status = visit(team, r, draws, memory.data);
          if (team.id == 0)
            note(status);
          if (r + 1 < rows)
            team.sync();
        }
      }
    }
  }
  if (lacking)
    return {Code::out_of_memory, -1};
  if (invalid >= 0)
    return {Code::invalid_value, invalid};
  return degenerate >= 0 ? Status{Code::degenerate, degenerate} : Status{};
}

inline std::uint64_t seed_of(const Seeds& seeds, std::int64_t group) {
  return seeds.each != nullptr ? static_cast<std::uint64_t>(seeds.each[group])
                               : expand_seed(seeds.one, group);
}

} // namespace
} // namespace fg::FG_LEVEL
