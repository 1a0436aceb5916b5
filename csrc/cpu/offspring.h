// From the slots that items end at to ancestors, for one SIMD level.
//
// Item n owns the slots [ends[n - 1], ends[n]). Writing them is the larger part of selection: a loop with a branch an
// offspring took 3.6 ms at 2^20 items where wide stores that overrun, each mended by the next, took 0.8.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/intrinsics.h"

namespace fg::FG_LEVEL {
namespace {

#if defined(FG_LEVEL_avx512) || defined(FG_LEVEL_avx2)
constexpr int kStore = 8;
#else
constexpr int kStore = 4;
#endif
typedef std::int32_t Ids __attribute__((vector_size(4 * kStore)));

inline void store(std::int32_t* to, const Ids& ids) {
  std::memcpy(to, &ids, sizeof ids);
}

// Writes `id`, `id` + 1, ... over their slots of `out`, the first from `start` on. May scribble over
// [ends[n - 1], limit).
inline void fill(const std::int32_t* ends, std::int64_t n, std::int64_t id, std::int32_t* out, std::int64_t start,
                 std::int64_t limit) {
  std::int64_t wide = n;
  while (wide > 0 && std::int64_t{ends[wide - 1]} + kStore > limit)
    --wide;
  Ids ids = Ids{} + static_cast<std::int32_t>(id);
  std::int64_t i = 0;
  for (; i < wide; ++i) {
    const std::int64_t end = ends[i];
    store(out + start, ids);
    for (std::int64_t p = start + kStore; p < end; p += kStore)
      store(out + p, ids);
    start = end;
    ids += 1;
  }
  for (; i < n; ++i) {
    for (; start < ends[i]; ++start)
      out[start] = static_cast<std::int32_t>(id + i);
  }
}

constexpr std::int32_t kDead = -1; // all bits set: an index or-ed with it is dead

// For `order="slots"`: marks items without offspring by kDead, puts the others in their own slot, and turns `ends` into the
// ends of surplus copies, counted from `surplus` on. Returns the surplus after the last item and adds to `dead`.
inline std::int64_t keep_survivors(std::int32_t* ends, std::int64_t n, std::int64_t id, std::int64_t start,
                                   std::int64_t surplus, std::int32_t* out, std::int64_t& dead) {
  std::int32_t before = static_cast<std::int32_t>(start), copies = static_cast<std::int32_t>(surplus);
  std::int32_t none = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int32_t offspring = ends[i] - before;
    before = ends[i];
    const std::int32_t is_dead = offspring == 0;
    out[i] = static_cast<std::int32_t>(id + i) | -is_dead;
    none += is_dead;
    copies += offspring - 1 + is_dead;
    ends[i] = copies;
  }
  dead += none;
  return copies;
}

// Replaces kDead in out[i .. stop) by *next, *(next + 1), ... until one of the ranges ends; advances `i` and `next`. Without
// branches on the data: half of them would be mispredicted.
inline void expand(std::int32_t* out, std::int64_t& i, std::int64_t stop, const std::int32_t*& next,
                   const std::int32_t* end) {
#if defined(FG_LEVEL_avx512)
  for (; i + 16 <= stop && next + 16 <= end; i += 16) {
    const __m512i own = _mm512_loadu_si512(out + i);
    const __mmask16 dead = _mm512_movepi32_mask(own);
    _mm512_storeu_si512(out + i, _mm512_mask_expand_epi32(own, dead, _mm512_loadu_si512(next)));
    next += __builtin_popcount(dead);
  }
#endif
  for (; i < stop && next < end; ++i) {
    const std::int32_t own = out[i], dead = own >> 31;
    out[i] = (own & ~dead) | (*next & dead);
    next -= dead;
  }
}

} // namespace
} // namespace fg::FG_LEVEL
