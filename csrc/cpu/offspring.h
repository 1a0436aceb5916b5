// From the slots that items end at to ancestors, for one SIMD level.
//
// Item n owns the slots [ends[n - 1], ends[n]). Writing them is the larger part of selection: a loop with a
// branch an offspring took 3.6 ms at 2^20 items where wide stores that overrun, each mended by the next, took
// 0.8.
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

inline void store_ids(std::int32_t* to, const Ids& ids) {
  std::memcpy(to, &ids, sizeof ids);
}

// Writes `id`, `id` + 1, ... over their slots of `out`, the first from `start` on. May scribble over
// [ends[n - 1], limit).
inline void fill_each(const std::int32_t* ends, std::int64_t n, std::int64_t id, std::int32_t* out,
                      std::int64_t start, std::int64_t limit) {
  std::int64_t wide = n;
  while (wide > 0 && std::int64_t{ends[wide - 1]} + kStore > limit)
    --wide;
  Ids ids = Ids{} + static_cast<std::int32_t>(id);
  std::int64_t i = 0;
  for (; i < wide; ++i) {
    const std::int64_t end = ends[i];
    store_ids(out + start, ids);
    for (std::int64_t p = start + kStore; p < end; p += kStore)
      store_ids(out + p, ids);
    start = end;
    ids += 1;
  }
  for (; i < n; ++i) {
    for (; start < ends[i]; ++start)
      out[start] = static_cast<std::int32_t>(id + i);
  }
}

#if defined(FG_LEVEL_avx512)

// 16 items at a time. Write the numbers of their offspring in unary, a 0 for each and a 1 after each item:
// item i's 1 stands at bit ends[i] - start + i, and the 0 at bit z that is the j-th belongs to item z - j.
// Compressing the bit numbers of the zeros therefore gives the ids in order, with no branch on the data.
// Sixteen items with more than 32 offspring are rare, and go one by one.
inline void fill(const std::int32_t* ends, std::int64_t n, std::int64_t id, std::int32_t* out,
                 std::int64_t start, std::int64_t limit) {
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i one = _mm512_set1_epi64(1);
  std::int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const std::int64_t end = ends[i + 15];
    if (end == start)
      continue;
    if (end - start > 32 || start + 48 > limit) {
      fill_each(ends + i, 16, id + i, out, start, limit);
    } else {
      const __m512i e = _mm512_loadu_si512(ends + i);
      const __m512i at =
          _mm512_add_epi32(e, _mm512_sub_epi32(lanes, _mm512_set1_epi32(static_cast<std::int32_t>(start))));
      const __m512i low = _mm512_sllv_epi64(one, _mm512_cvtepu32_epi64(_mm512_castsi512_si256(at)));
      const __m512i high = _mm512_sllv_epi64(one, _mm512_cvtepu32_epi64(_mm512_extracti64x4_epi64(at, 1)));
      const std::uint64_t zeros =
          ~static_cast<std::uint64_t>(_mm512_reduce_or_epi64(_mm512_or_si512(low, high)));
      const __m512i first = _mm512_set1_epi32(static_cast<std::int32_t>(id + i));
      std::int64_t j = 0;
      for (int chunk = 0; chunk < 48; chunk += 16) {
        const __mmask16 mask = static_cast<__mmask16>(zeros >> chunk);
        const __m512i from = _mm512_add_epi32(first, _mm512_set1_epi32(chunk - static_cast<std::int32_t>(j)));
        const __m512i z = _mm512_maskz_compress_epi32(mask, lanes);
        _mm512_storeu_si512(out + start + j, _mm512_add_epi32(from, _mm512_sub_epi32(z, lanes)));
        j += __builtin_popcount(mask);
      }
    }
    start = end;
  }
  fill_each(ends + i, n - i, id + i, out, start, limit);
}

#else

inline void fill(const std::int32_t* ends, std::int64_t n, std::int64_t id, std::int32_t* out,
                 std::int64_t start, std::int64_t limit) {
  fill_each(ends, n, id, out, start, limit);
}

#endif

constexpr std::int32_t kDead = -1; // all bits set: an index or-ed with it is dead

// For `order="slots"`: marks items without offspring by kDead, puts the others in their own slot, and turns
// `ends` into the ends of surplus copies, counted from `surplus` on. Returns the surplus after the last item
// and adds to `dead`.
inline std::int64_t keep_survivors(std::int32_t* ends, std::int64_t n, std::int64_t id, std::int64_t start,
                                   std::int64_t surplus, std::int32_t* out, std::int64_t& dead) {
  std::int32_t before = static_cast<std::int32_t>(start), copies = static_cast<std::int32_t>(surplus);
  std::int32_t none = 0;
  std::int64_t i = 0;
#if defined(FG_LEVEL_avx512)
  const __m512i zero = _mm512_setzero_si512(), one = _mm512_set1_epi32(1), last = _mm512_set1_epi32(15);
  __m512i ids = _mm512_add_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                                 _mm512_set1_epi32(static_cast<std::int32_t>(id)));
  __m512i previous = _mm512_set1_epi32(before), carry = _mm512_set1_epi32(copies);
  for (; i + 16 <= n; i += 16) {
    const __m512i end = _mm512_loadu_si512(ends + i);
    const __m512i offspring = _mm512_sub_epi32(end, _mm512_alignr_epi32(end, previous, 15));
    const __mmask16 is_dead = _mm512_cmpeq_epi32_mask(offspring, zero);
    _mm512_storeu_si512(out + i, _mm512_mask_set1_epi32(ids, is_dead, kDead));
    none += __builtin_popcount(is_dead);
    __m512i surplus_end = _mm512_max_epi32(_mm512_sub_epi32(offspring, one), zero);
    surplus_end = _mm512_add_epi32(surplus_end, _mm512_alignr_epi32(surplus_end, zero, 15));
    surplus_end = _mm512_add_epi32(surplus_end, _mm512_alignr_epi32(surplus_end, zero, 14));
    surplus_end = _mm512_add_epi32(surplus_end, _mm512_alignr_epi32(surplus_end, zero, 12));
    surplus_end = _mm512_add_epi32(surplus_end, _mm512_alignr_epi32(surplus_end, zero, 8));
    _mm512_storeu_si512(ends + i, _mm512_add_epi32(surplus_end, carry));
    carry = _mm512_add_epi32(carry, _mm512_permutexvar_epi32(last, surplus_end));
    previous = end;
    ids = _mm512_add_epi32(ids, _mm512_set1_epi32(16));
  }
  if (i > 0) {
    copies = ends[i - 1];
    before = _mm_cvtsi128_si32(_mm512_castsi512_si128(_mm512_permutexvar_epi32(last, previous)));
  }
#endif
  for (; i < n; ++i) {
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

// Replaces kDead in out[i .. stop) by *next, *(next + 1), ... until one of the ranges ends; advances `i` and
// `next`. Without branches on the data: half of them would be mispredicted.
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
