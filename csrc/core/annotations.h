// What lets one header serve g++ and nvcc, and one kernel source serve several SIMD levels.
#pragma once

#if defined(__CUDACC__)
#define FG_HD __host__ __device__ __forceinline__
#else
#define FG_HD inline __attribute__((always_inline))
#endif
