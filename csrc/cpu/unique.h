// unique: rows that are equal byte for byte, each named by its first occurrence.
#pragma once

#include <cstdint>

#include "cpu/status.h"

namespace fg {

struct UniqueArgs {
  const void* rows; // [count, row_bytes]
  std::int64_t count, row_bytes;
  std::uint64_t
      hash_mask; // all ones; fewer bits weaken the hash, which may cost time but not change a result
  std::int64_t* representatives; // [count]; the first `distinct` are set
  std::int64_t* inverse;         // [count]
  std::int64_t* counts;          // [count]; the first `distinct` are set
  std::int64_t* distinct;
  int threads;
};

#define FG_UNIQUE_KERNELS(X) X(unique, UniqueArgs)

} // namespace fg
