// Stores that pass the caches by: for outputs so large that the next reader finds nothing of them there. They
// spare the read of each line before it is written, a third of the traffic of a copy.
#pragma once

#include <cstdint>

#include "cpu/intrinsics.h"
#include "cpu/lanes.h"

namespace fg::FG_LEVEL {

constexpr std::int64_t kRegister = sizeof(Floats);
constexpr std::int64_t kStreamed = std::int64_t{1}
                                   << 23; // bytes of output from which it pays; an L2 and more

// `to` is aligned to a register.
FG_HD void stream(void* to, Floats v) {
#if defined(FG_LEVEL_avx512)
  _mm512_stream_ps(static_cast<float*>(to), (__m512)v);
#elif defined(FG_LEVEL_avx2)
  _mm256_stream_ps(static_cast<float*>(to), v);
#elif defined(__x86_64__)
  _mm_stream_ps(static_cast<float*>(to), v);
#else
  store(to, v);
#endif
}

// Makes what this thread has streamed visible to those that it meets next.
FG_HD void finish_streams() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// Bytes from `to` to the next boundary of a register.
FG_HD std::int64_t to_boundary(const void* to) {
  return -reinterpret_cast<std::intptr_t>(to) & (kRegister - 1);
}

} // namespace fg::FG_LEVEL
