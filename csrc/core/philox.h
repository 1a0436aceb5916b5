// Philox4x32-10 (Salmon et al., SC 2011) and the layout of its counter.
//
// The key is a group's 64-bit seed. The counter is (word block, slot, position block, step * 16 + stream), so
// that a draw depends on what it is for and on nothing else: not on threads, micro-batches, groups beside it
// or the order of calls.
#pragma once

#include <cstdint>

#include "core/annotations.h"

namespace fg {

enum class Stream : std::uint32_t { prior = 0, positions, tokens, noise, select, value, accept, user };

struct Words {
  std::uint32_t w[4];

  // The `half`-th (0 or 1) 64-bit word. An index that is not known would put the words into a GPU's memory.
  FG_HD std::uint64_t word64(int half) const {
    return half == 0 ? static_cast<std::uint64_t>(w[1]) << 32 | w[0]
                     : static_cast<std::uint64_t>(w[3]) << 32 | w[2];
  }
};

FG_HD Words philox(std::uint64_t key, std::uint32_t c0, std::uint32_t c1, std::uint32_t c2,
                   std::uint32_t c3) {
  std::uint32_t k0 = static_cast<std::uint32_t>(key), k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = static_cast<std::uint64_t>(0xD2511F53u) * c0;
    const std::uint64_t p1 = static_cast<std::uint64_t>(0xCD9E8D57u) * c2;
    const std::uint32_t n0 = static_cast<std::uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const std::uint32_t n2 = static_cast<std::uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<std::uint32_t>(p1);
    c3 = static_cast<std::uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

FG_HD std::uint32_t counter_word(std::int64_t step, Stream stream) {
  return static_cast<std::uint32_t>(step) * 16u + static_cast<std::uint32_t>(stream);
}

} // namespace fg
