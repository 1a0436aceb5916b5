// Notes in a status, by any thread.
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/status.h"

namespace fg::cuda {

inline __device__ void report(std::int64_t* status, Word word, std::int64_t index) {
  atomicMin(reinterpret_cast<long long*>(status + word), static_cast<long long>(index));
}

} // namespace fg::cuda
