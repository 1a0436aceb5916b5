// Which positions of a state are masked, 64 at a time, and the first fault met on the way.
#pragma once

#include <cstdint>

#include "cpu/lanes.h"
#include "cpu/status.h"

namespace fg::FG_LEVEL {

// Bit i: tokens[i] is the mask; `strange` becomes true where a token is neither that nor in the vocabulary.
// Copies the tokens to `copy`, if given, on the way, which costs no second read.
FG_HD std::uint64_t masked(const std::int64_t* tokens, int n, std::int64_t mask, bool& strange,
                           std::int64_t* copy = nullptr) {
  std::uint64_t bits = 0, beyond = 0;
  int i = 0;
#if defined(FG_LEVEL_avx512)
  const __m512i m = _mm512_set1_epi64(mask);
  for (; i + 8 <= n; i += 8) {
    const __m512i t = load<__m512i>(tokens + i);
    if (copy)
      store(copy + i, t);
    bits |= static_cast<std::uint64_t>(_mm512_cmpeq_epi64_mask(t, m)) << i;
    beyond |= _mm512_cmpgt_epu64_mask(t, m);
  }
#elif defined(FG_LEVEL_avx2)
  const __m256i m = _mm256_set1_epi64x(mask);
  for (; i + 4 <= n; i += 4) {
    const __m256i t = load<__m256i>(tokens + i);
    if (copy)
      store(copy + i, t);
    const int equal = _mm256_movemask_pd(_mm256_castsi256_pd(_mm256_cmpeq_epi64(t, m)));
    const __m256i out =
        _mm256_or_si256(_mm256_cmpgt_epi64(t, m), t); // the sign bit: above the mask or negative
    bits |= static_cast<std::uint64_t>(equal) << i;
    beyond |= static_cast<std::uint64_t>(_mm256_movemask_pd(_mm256_castsi256_pd(out)));
  }
#endif
  for (; i < n; ++i) {
    if (copy)
      copy[i] = tokens[i];
    bits |= static_cast<std::uint64_t>(tokens[i] == mask) << i;
    beyond |= static_cast<std::uint64_t>(tokens[i]) > static_cast<std::uint64_t>(mask);
  }
  strange |= beyond != 0;
  return bits;
}
FG_HD std::uint64_t masked(const std::int32_t* tokens, int n, std::int64_t mask, bool& strange,
                           std::int32_t* copy = nullptr) {
  std::uint64_t bits = 0, beyond = 0;
  int i = 0;
#if defined(FG_LEVEL_avx512)
  const __m512i m = _mm512_set1_epi32(static_cast<int>(mask)); // a row of 2^31 logits would not fit in memory
  for (; i + 16 <= n; i += 16) {
    const __m512i t = load<__m512i>(tokens + i);
    if (copy)
      store(copy + i, t);
    bits |= static_cast<std::uint64_t>(_mm512_cmpeq_epi32_mask(t, m)) << i;
    beyond |= _mm512_cmpgt_epu32_mask(t, m);
  }
#endif
  for (; i < n; ++i) {
    if (copy)
      copy[i] = tokens[i];
    bits |= static_cast<std::uint64_t>(tokens[i] == mask) << i;
    beyond |=
        static_cast<std::uint64_t>(static_cast<std::int64_t>(tokens[i])) > static_cast<std::uint64_t>(mask);
  }
  strange |= beyond != 0;
  return bits;
}

// Where the first such token stands; there is one.
template <typename Token> FG_HD int first_strange(const Token* tokens, std::int64_t mask) {
  int i = 0;
  while (tokens[i] >= 0 && tokens[i] <= mask)
    ++i;
  return i;
}

// The first trouble met, by index: a total order, so that threads agree.
struct Trouble {
  static constexpr std::int64_t kNone = INT64_MAX;
  std::int64_t key = kNone;

  void add(std::int64_t index, Code code) {
    const std::int64_t k = index * 8 + static_cast<int>(code);
    key = k < key ? k : key;
  }
  Status status() const { return key == kNone ? Status{} : Status{static_cast<Code>(key & 7), key >> 3}; }
};

// What a thread met. Out-of-range indices are reported before bad rows, and rows that could not be ranked
// before those that could not be drawn from: a kernel that met one has not read every row.
struct Outcome {
  Trouble ranges, ranks, rows;
  bool short_of_memory = false;

  void add(const Outcome& other) {
    ranges.key = other.ranges.key < ranges.key ? other.ranges.key : ranges.key;
    ranks.key = other.ranks.key < ranks.key ? other.ranks.key : ranks.key;
    rows.key = other.rows.key < rows.key ? other.rows.key : rows.key;
    short_of_memory |= other.short_of_memory;
  }
  Status status() const {
    if (short_of_memory)
      return {Code::out_of_memory, -1};
    const Trouble& first = ranges.key != Trouble::kNone ? ranges : ranks.key != Trouble::kNone ? ranks : rows;
    return first.status();
  }
};

} // namespace fg::FG_LEVEL
