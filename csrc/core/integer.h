// 64-bit integer helpers that the selection and token draws rest on.
#pragma once

#include <cstdint>

#include "core/annotations.h"

namespace fg {

// floor(a * b / 2^64): maps a uniform 64-bit word `a` to a uniform integer in [0, b).
FG_HD std::uint64_t mulhi64(std::uint64_t a, std::uint64_t b) {
#if defined(__CUDA_ARCH__)
  return __umul64hi(a, b);
#else
  __extension__ typedef unsigned __int128 u128;
  return static_cast<std::uint64_t>((static_cast<u128>(a) * b) >> 64);
#endif
}

// x shifted left by `s`, or right (towards zero, x >= 0) by -s; a right shift of 63 or more gives zero.
FG_HD std::int64_t shift(std::int64_t x, std::int64_t s) {
  if (s >= 0)
    return x << s;
  return s <= -63 ? 0 : x >> -s;
}

} // namespace fg
