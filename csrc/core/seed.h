// Seeds of groups.
#pragma once

#include <cstdint>

#include "core/annotations.h"
#include "core/philox.h"

namespace fg {

// The 63-bit seed that group `g` gets from one integer.
FG_HD std::uint64_t expand_seed(std::uint64_t seed, std::int64_t g) {
  return philox(seed, static_cast<std::uint32_t>(g), static_cast<std::uint32_t>(g >> 32), 0, 0xFFFFFFFFu)
             .word64(0) >>
         1;
}

} // namespace fg
