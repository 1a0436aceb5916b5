// unique on a GPU: rows that are equal byte for byte, each named by its first occurrence; as
// csrc/cpu/unique.h.
#pragma once

#include <cstdint>

#include "cuda/stream.h"

namespace fg::cuda {

struct UniqueArgs {
  const void* rows;              // [count, row_bytes]
  std::int64_t count, row_bytes; // at most 2^31 - 2 rows, none of them empty
  std::uint64_t
      hash_mask; // all ones; fewer bits weaken the hash, which may cost time but not change a result
  std::int64_t* representatives; // [count]; the first `distinct` are set, the rest 0
  std::int64_t* inverse;         // [count]
  std::int64_t* counts;          // [count]; the first `distinct` are set, the rest 0
  std::int64_t* distinct;        // on the device
  void* workspace;               // unique_bytes() of them, 256-byte aligned
};

std::int64_t unique_bytes(std::int64_t count);
void unique(const UniqueArgs& args, StreamHandle stream);

} // namespace fg::cuda
