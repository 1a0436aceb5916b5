// Values of token states. Tokens are checked and narrowed once, row by row, and then looked up one at a time:
// two loads a look-up, where a gather of 16 costs these processors three times as much as 16 pairs of loads.
#pragma once

#include <cstdint>

#include "core/annotations.h"
#include "cpu/value_rows.h"

namespace fg::FG_LEVEL {
namespace {

// Copies tokens; returns the first that is not in [0, vocab), or -1.
template <typename State, typename Token>
std::int64_t narrow(const State* states, std::int64_t n, std::int64_t vocab, Token* tokens) {
  const auto outside = [vocab](State t) -> int {
    return static_cast<std::uint64_t>(static_cast<std::int64_t>(t)) >= static_cast<std::uint64_t>(vocab);
  };
  int any = 0;
#pragma omp simd reduction(| : any)
  for (std::int64_t i = 0; i < n; ++i) {
    any |= outside(states[i]);
    tokens[i] = static_cast<Token>(states[i]);
  }
  std::int64_t i = any ? 0 : n;
  while (i < n && !outside(states[i]))
    ++i;
  return i < n ? i : -1;
}

template <typename Token>
std::int64_t read_tokens(const EvaluateArgs& a, std::int64_t row, std::int64_t count, std::int64_t vocab,
                         Token* tokens) {
  const std::int64_t first = row * a.columns, n = count * a.columns;
  switch (a.type) {
  case StateType::uint8:
    return narrow(static_cast<const std::uint8_t*>(a.states) + first, n, vocab, tokens);
  case StateType::int32:
    return narrow(static_cast<const std::int32_t*>(a.states) + first, n, vocab, tokens);
  default:
    return narrow(static_cast<const std::int64_t*>(a.states) + first, n, vocab, tokens);
  }
}

} // namespace
} // namespace fg::FG_LEVEL
