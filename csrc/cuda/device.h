// What kernels are written in: nvcc's words and CUB's collectives. A host compiler takes both from an
// emulation (tests/native/emulated), which runs the same kernels on the CPU.
#pragma once

#include <cstdint>

#include "core/annotations.h"
#include "cuda/stream.h"

#if defined(__CUDACC__)
#include <stdexcept>
#include <string>

#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>
#include <cuda_runtime.h>

#define FG_UNROLL _Pragma("unroll")
#else
#include "emulated/cuda.h"
#endif

namespace fg::cuda {

#if defined(__CUDACC__)

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("fastguide._cuda: ") + what + ": " + cudaGetErrorString(error));
}

// Runs `kernel` on `blocks` blocks, none where there are none.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), std::int64_t blocks, int threads, StreamHandle stream,
            const Arguments&... arguments) {
  if (blocks == 0)
    return;
  kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), 0, stream>>>(arguments...);
  check(cudaGetLastError(), "a kernel cannot be launched");
}

inline void clear(void* memory, int byte, std::int64_t bytes, StreamHandle stream) {
  check(cudaMemsetAsync(memory, byte, static_cast<std::size_t>(bytes), stream), "memory cannot be set");
}

// The whole block's, known to every thread. May be called again at once.
template <int threads, typename T, typename Op> __device__ T reduce(T x, Op op) {
  using Reduce = cub::BlockReduce<T, threads>;
  __shared__ typename Reduce::TempStorage storage;
  __shared__ T result;
  x = Reduce(storage).Reduce(x, op);
  if (threadIdx.x == 0)
    result = x;
  __syncthreads();
  x = result;
  __syncthreads();
  return x;
}

// What the threads before this one come to, `first` for the first of them. May be called again at once.
template <int threads, typename T, typename Op> __device__ T scan_before(T x, T first, Op op) {
  using Scan = cub::BlockScan<T, threads, cub::BLOCK_SCAN_WARP_SCANS>;
  __shared__ typename Scan::TempStorage storage;
  Scan(storage).ExclusiveScan(x, x, first, op);
  __syncthreads();
  return x;
}

#endif

struct Plus {
  template <typename T> FG_HD T operator()(const T& a, const T& b) const { return a + b; }
};
struct Larger {
  template <typename T> FG_HD T operator()(const T& a, const T& b) const { return a > b ? a : b; }
};

struct Smaller {
  template <typename T> FG_HD T operator()(const T& a, const T& b) const { return a < b ? a : b; }
};

// Thread 0's, known to every thread. May be called again at once.
template <typename T> __device__ T broadcast(T x) {
  __shared__ T first;
  if (threadIdx.x == 0)
    first = x;
  __syncthreads();
  x = first;
  __syncthreads();
  return x;
}

// Also the sum over all threads.
template <int threads, typename T> __device__ T sum_before(T x, T& total) {
  const T before = scan_before<threads>(x, T{}, Plus{});
  __shared__ T last;
  if (threadIdx.x == threads - 1)
    last = before + x;
  __syncthreads();
  total = last;
  __syncthreads();
  return before;
}

} // namespace fg::cuda
