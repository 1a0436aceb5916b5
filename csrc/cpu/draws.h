// The draws of a call: which child takes a token from which row of logits, and by which random word.
#pragma once

#include <cstdint>
#include <cstdlib>

#include "cpu/lanes.h"
#include "cpu/masked.h"

namespace fg::FG_LEVEL {

struct Draw {
  std::int64_t at;  // in children
  std::int64_t row; // state * length + position
  std::uint32_t slot, position;
  std::uint64_t word;
};

// A growing list; malloc because a standard container would emit code above the baseline under a shared name.
struct Draws {
  Draw* data = nullptr;
  std::int64_t count = 0, capacity = 0;

  Draws() = default;
  Draws(const Draws&) = delete;
  Draws& operator=(const Draws&) = delete;
  ~Draws() { std::free(data); }

  bool reserve(std::int64_t more) {
    if (count + more <= capacity)
      return true;
    const std::int64_t wanted = 2 * capacity + more;
    void* grown = std::realloc(data, static_cast<std::size_t>(wanted) * sizeof(Draw));
    if (!grown)
      return false;
    data = static_cast<Draw*>(grown);
    capacity = wanted;
    return true;
  }
};

// Fills in the words of draws [from, draws.count), all of one group.
FG_HD void make_words(Draws& draws, std::int64_t from, std::uint64_t key, const MaskedArgs& a) {
  if (a.inverse_temperature == 0)
    return;
  const std::uint32_t step = static_cast<std::uint32_t>(a.step) * 16u + a.stream;
  for (std::int64_t i = from; i < draws.count; i += kWideLanes) {
    const int n = draws.count - i < kWideLanes ? static_cast<int>(draws.count - i) : kWideLanes;
    std::uint64_t slots[kWideLanes] = {}, positions[kWideLanes] = {}, low[kWideLanes], high[kWideLanes];
    for (int k = 0; k < n; ++k) {
      slots[k] = draws.data[i + k].slot;
      positions[k] = draws.data[i + k].position;
    }
    const WordLanes words =
        philox_lanes(key, ulongs(0), load<ULongs>(slots), load<ULongs>(positions), ulongs(step));
    store(low, words.w[0] & 0xFFFFFFFFu);
    store(high, words.w[1] << 32);
    for (int k = 0; k < n; ++k)
      draws.data[i + k].word = high[k] | low[k];
  }
}

// The draws of all threads, ordered by row.
struct SortedDraws {
  Draw* data;
  std::int64_t* starts; // of the distinct rows, and one past the last draw
  std::int64_t rows = 0;

  SortedDraws(const Draws* parts, int threads, std::int64_t all_rows) {
    std::int64_t count = 0;
    for (int t = 0; t < threads; ++t)
      count += parts[t].count;
    const std::size_t entries = static_cast<std::size_t>(count) + 1;
    std::int64_t* next =
        static_cast<std::int64_t*>(std::calloc(static_cast<std::size_t>(all_rows), sizeof *next));
    data = static_cast<Draw*>(std::malloc(entries * sizeof *data));
    starts = static_cast<std::int64_t*>(std::malloc(entries * sizeof *starts));
    complete = next && data && starts;
    if (complete) {
      for (int t = 0; t < threads; ++t)
        for (std::int64_t i = 0; i < parts[t].count; ++i)
          ++next[parts[t].data[i].row];
      std::int64_t before = 0;
      for (std::int64_t r = 0; r < all_rows; ++r) {
        const std::int64_t here = next[r];
        next[r] = before;
        if (here)
          starts[rows++] = before;
        before += here;
      }
      starts[rows] = before;
      for (int t = 0; t < threads; ++t)
        for (std::int64_t i = 0; i < parts[t].count; ++i)
          data[next[parts[t].data[i].row]++] = parts[t].data[i];
    }
    std::free(next);
  }
  SortedDraws(const SortedDraws&) = delete;
  SortedDraws& operator=(const SortedDraws&) = delete;
  ~SortedDraws() {
    std::free(data);
    std::free(starts);
  }
  bool complete;
};

} // namespace fg::FG_LEVEL
