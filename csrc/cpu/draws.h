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
  std::uint64_t key;  // of the particle's group
  std::uint64_t word; // set by make_words
};

// A growing list; malloc because a standard container would emit code above the baseline under a shared name.
struct Draws {
  Draw* data = nullptr;
  std::int64_t count = 0, capacity = 0;

  Draws() = default;
  Draws(const Draws&) = delete;
  Draws& operator=(const Draws&) = delete;
  ~Draws() { std::free(data); }

  void drop_first(std::int64_t first) {
    first = first < count ? first : count;
    for (std::int64_t i = first; i < count; ++i)
      data[i - first] = data[i];
    count -= first;
  }
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

// The random words of n <= kWideLanes draws; room for kWideLanes.
FG_HD void draw_words(const Draw* draws, std::int64_t n, const MaskedArgs& a, std::uint64_t* words) {
  std::uint64_t keys[kWideLanes] = {}, slots[kWideLanes] = {}, positions[kWideLanes] = {};
  for (std::int64_t i = 0; i < n; ++i) {
    keys[i] = draws[i].key;
    slots[i] = draws[i].slot;
    positions[i] = draws[i].position;
  }
  const ULongs key = load<ULongs>(keys);
  const std::uint32_t step = static_cast<std::uint32_t>(a.step) * 16u + a.stream;
  const WordLanes lanes = philox_lanes(key & 0xFFFFFFFFu, key >> 32, ulongs(0), load<ULongs>(slots),
                                       load<ULongs>(positions), ulongs(step));
  store(words, lanes.w[1] << 32 | (lanes.w[0] & 0xFFFFFFFFu));
}

FG_HD void make_words(Draw* draws, std::int64_t n, const MaskedArgs& a) {
  for (std::int64_t i = 0; i < n; i += kWideLanes) {
    std::uint64_t words[kWideLanes];
    const std::int64_t some = n - i < kWideLanes ? n - i : kWideLanes;
    draw_words(draws + i, some, a, words);
    for (std::int64_t k = 0; k < some; ++k)
      draws[i + k].word = words[k];
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
