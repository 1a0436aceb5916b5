// How often motifs occur, occurrences that overlap counted each.
#pragma once

#include "cpu/value_tokens.h"

namespace fg::FG_LEVEL {
namespace {

template <typename Token> struct MotifCount {
  static constexpr std::int64_t kRows = 64;

  static std::int64_t vocab(const EvaluateArgs& a) { return a.settings[0]; }
  static std::int64_t bytes(const EvaluateArgs& a) {
    return a.columns * static_cast<std::int64_t>(sizeof(Token));
  }

  static void tile(const EvaluateArgs& a, const Token* tokens, std::int64_t count, float* out,
                   void* workspace) {
    auto* found = static_cast<Token*>(workspace);
    const std::int64_t motifs = a.settings[1];
    for (std::int64_t row = 0; row < count; ++row, tokens += a.columns) {
      std::int64_t total = 0;
      const std::int64_t* motif = a.settings + 2 + motifs;
      for (std::int64_t m = 0; m < motifs; ++m) {
        const std::int64_t length = a.settings[2 + m], starts = a.columns - length + 1;
        for (std::int64_t s = 0; s < starts; ++s)
          found[s] = tokens[s] == static_cast<Token>(motif[0]);
        for (std::int64_t k = 1; k < length; ++k)
          for (std::int64_t s = 0; s < starts; ++s)
            found[s] &= tokens[s + k] == static_cast<Token>(motif[k]);
        for (std::int64_t s = 0; s < starts; ++s)
          total += found[s];
        motif += length;
      }
      out[row] = static_cast<float>(total);
    }
  }
};

} // namespace
} // namespace fg::FG_LEVEL
