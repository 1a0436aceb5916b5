// CUDA's words for a host compiler: the threads of a block are fibers that take turns from barrier to
// barrier, in increasing or, where they are reversed, in decreasing order; blocks run one after
// another, in that order too. What a kernel computes must not depend on it: a barrier that is missing shows
// as a difference.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>

#include "cuda/stream.h"

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)
#define FG_UNROLL

namespace fg::cuda {

struct Index {
  unsigned x;
};
extern Index threadIdx, blockIdx, blockDim, gridDim;

// Waits for all threads of the block.
void __syncthreads();

void run_block(int threads, const std::function<void()>& body);
extern bool reversed;

template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), std::int64_t blocks, int threads, StreamHandle,
            const Arguments&... arguments) {
  gridDim = {static_cast<unsigned>(blocks)};
  blockDim = {static_cast<unsigned>(threads)};
  for (std::int64_t b = 0; b < blocks; ++b) {
    blockIdx = {static_cast<unsigned>(reversed ? blocks - 1 - b : b)};
    run_block(threads, [&] { kernel(arguments...); });
  }
}

inline void clear(void* memory, int byte, std::int64_t bytes, StreamHandle) {
  std::memset(memory, byte, static_cast<std::size_t>(bytes));
}

template <int threads, typename T, typename Op> T reduce(T x, Op op) {
  static T each[threads], result;
  each[threadIdx.x] = x;
  __syncthreads();
  if (threadIdx.x == 0) {
    result = each[0];
    for (int t = 1; t < threads; ++t)
      result = op(result, each[t]);
  }
  __syncthreads();
  return result;
}

template <int threads, typename T, typename Op> T scan_before(T x, T first, Op op) {
  static T each[threads];
  each[threadIdx.x] = x;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int t = 0; t < threads; ++t) {
      const T own = each[t];
      each[t] = first;
      first = op(first, own);
    }
  }
  __syncthreads();
  return each[threadIdx.x];
}

template <typename T, typename U> T atomicAdd(T* at, U by) {
  const T before = *at;
  *at = static_cast<T>(before + static_cast<T>(by));
  return before;
}
template <typename T, typename U> T atomicMin(T* at, U other) {
  const T before = *at;
  if (static_cast<T>(other) < before)
    *at = static_cast<T>(other);
  return before;
}
template <typename T> T atomicCAS(T* at, T expected, T wanted) {
  const T before = *at;
  if (before == expected)
    *at = wanted;
  return before;
}
inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}

} // namespace fg::cuda
