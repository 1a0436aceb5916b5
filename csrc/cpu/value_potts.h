// A field a position and a coupling a pair of positions: for each position i the sum of its field and of its
// couplings to the positions after it in float, the sum over i in double.
//
// The pairs of i with eight positions stand in the outer loop, so that their couplings (12.8 kB for 20
// tokens) stay in the first-level cache while all rows of a tile are looked up in them; a tile is large,
// because the couplings come from the third level for every tile anew.
#pragma once

#include "cpu/value_tokens.h"

namespace fg::FG_LEVEL {
namespace {

template <typename Token> struct PottsValue {
  static constexpr std::int64_t kRows = 1024;
  static constexpr std::int64_t kGroup = 8;
  static constexpr std::int64_t kAhead =
      16384; // bytes that find room in the first-level cache beside those in use

  static std::int64_t vocab(const EvaluateArgs& a) { return a.settings[0]; }
  static std::int64_t groups(const EvaluateArgs& a) { return (a.columns + kGroup - 1) / kGroup; }
  static std::int64_t bytes(const EvaluateArgs& a) {
    return kRows * (16 + groups(a) * kGroup * static_cast<std::int64_t>(sizeof(Token)));
  }

  // Adds to `sums` the couplings to `Pairs` positions, whose tokens stand kGroup apart from row to row;
  // `table` holds those couplings, and starts[row] says where in it the token of the first position begins.
  template <int Pairs>
  static void couple(const float* table, std::int64_t square, const std::int32_t* starts, const Token* tokens,
                     std::int64_t count, float* sums) {
    // The couplings of the next group, wherever it may be: a prefetch of no memory does no harm.
    const char* next = reinterpret_cast<const char*>(table + Pairs * square);
    const std::int64_t ahead = kGroup * square * 4 <= kAhead ? kGroup * square * 4 : 0;
    for (std::int64_t k = 0; k < ahead; k += 64)
      __builtin_prefetch(next + k);
    for (std::int64_t row = 0; row < count; ++row, tokens += kGroup) {
      const float* couplings = table + starts[row];
      float sum = sums[row];
#pragma GCC unroll 8
      for (int k = 0; k < Pairs; ++k) {
        sum += couplings[tokens[k]];
        couplings += square;
        asm("" : "+r"(couplings)); // else eight multiples of `square` are kept, and spilled
      }
      sums[row] = sum;
    }
  }

  // The same for a number of pairs up to `Pairs`.
  template <int Pairs, typename... Arguments>
  static FG_HD void couple_some(std::int64_t pairs, const Arguments&... arguments) {
    if (pairs == Pairs)
      couple<Pairs>(arguments...);
    else if constexpr (Pairs > 1)
      couple_some<Pairs - 1>(pairs, arguments...);
  }

  static void tile(const EvaluateArgs& a, const Token* tokens, std::int64_t count, float* out,
                   void* workspace) {
    auto* totals = static_cast<double*>(workspace);
    auto* sums = reinterpret_cast<float*>(totals + kRows);
    auto* starts = reinterpret_cast<std::int32_t*>(sums + kRows);
    auto* grouped = reinterpret_cast<Token*>(starts + kRows); // [groups, count, kGroup]
    const std::int64_t columns = a.columns, size = vocab(a), square = size * size;
    for (std::int64_t row = 0; row < count; ++row) {
      totals[row] = 0.0;
      for (std::int64_t j = 0; j < columns; ++j)
        grouped[(j / kGroup * count + row) * kGroup + j % kGroup] = tokens[row * columns + j];
    }
    for (std::int64_t i = 0; i < columns; ++i) {
      const Token* own = grouped + i / kGroup * count * kGroup + i % kGroup;
      for (std::int64_t row = 0; row < count; ++row) {
        starts[row] = static_cast<std::int32_t>(own[row * kGroup] * size);
        sums[row] = a.parameters[0][i * size + own[row * kGroup]];
      }
      for (std::int64_t j = i + 1; j < columns;) {
        const std::int64_t end = j / kGroup * kGroup + kGroup, pairs = (end < columns ? end : columns) - j;
        const float* table = a.parameters[1] + (i * columns + j) * square;
        const Token* others = grouped + j / kGroup * count * kGroup + j % kGroup;
        couple_some<kGroup>(pairs, table, square, starts, others, count, sums);
        j += pairs;
      }
      for (std::int64_t row = 0; row < count; ++row)
        totals[row] += static_cast<double>(sums[row]);
    }
    for (std::int64_t row = 0; row < count; ++row)
      out[row] = static_cast<float>(totals[row]);
  }
};

} // namespace
} // namespace fg::FG_LEVEL
