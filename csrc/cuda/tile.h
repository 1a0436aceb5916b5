// Log-weights of one block of the contract in the registers of one block of threads, and what they weigh.
//
// A thread holds consecutive items, so that cumulative weights need one scan of the threads' sums. 16 floats
// a thread are four loads of 16 bytes; a warp's loads of a line fall together in the first-level cache.
#pragma once

#include <climits>
#include <cmath>
#include <cstdint>

#include "core/selection.h"
#include "cuda/device.h"
#include "cuda/report.h"

namespace fg::cuda {

constexpr int kThreads = 256, kItems = 16;
static_assert(kThreads * kItems == kBlock);

// A block of log-weights: 32 bytes, one sector of memory.
struct alignas(32) Weighed {
  std::int64_t sum, squares; // as in BlockWeight of core/selection.h
  double max;                // -inf where every weight is zero
  std::int32_t exponent;     // 0 there
  std::int32_t largest;      // the first item of weight `max`; -1 where a log-weight is refused
};

template <typename Real> struct alignas(16) Pack {
  static constexpr int kSize = 16 / sizeof(Real);
  Real x[kSize];
};

FG_HD bool is_aligned(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
}

FG_HD int at_most(std::int64_t x, int most) {
  return x < most ? static_cast<int>(x) : most;
}

// Loads n numbers, the thread's own; those past the end are `rest`.
template <int items, typename T> __device__ void load_run(const T* x, int n, T rest, T (&run)[items]) {
  const int first = static_cast<int>(threadIdx.x) * items;
  constexpr int kPack = Pack<T>::kSize;
  if (items % kPack == 0 && first + items <= n && is_aligned(x)) {
    FG_UNROLL
    for (int p = 0; p < items / kPack; ++p) {
      const Pack<T> pack = reinterpret_cast<const Pack<T>*>(x + first)[p];
      FG_UNROLL
      for (int j = 0; j < kPack; ++j)
        run[p * kPack + j] = pack.x[j];
    }
  } else {
    FG_UNROLL
    for (int j = 0; j < items; ++j)
      run[j] = first + j < n ? x[first + j] : rest;
  }
}

template <int items, typename T> __device__ void store_run(T* x, int n, const T (&run)[items]) {
  const int first = static_cast<int>(threadIdx.x) * items;
  constexpr int kPack = Pack<T>::kSize;
  if (items % kPack == 0 && first + items <= n && is_aligned(x)) {
    FG_UNROLL
    for (int p = 0; p < items / kPack; ++p) {
      Pack<T> pack;
      FG_UNROLL
      for (int j = 0; j < kPack; ++j)
        pack.x[j] = run[p * kPack + j];
      reinterpret_cast<Pack<T>*>(x + first)[p] = pack;
    }
  } else {
    FG_UNROLL
    for (int j = 0; j < items; ++j) {
      if (first + j < n)
        x[first + j] = run[j];
    }
  }
}

template <int items, typename Real> __device__ void load_weights(const Real* x, int n, Real (&run)[items]) {
  load_run(x, n, -static_cast<Real>(INFINITY), run);
}

template <typename Real> struct Top {
  Real max;
  std::int32_t largest, invalid; // indices in the block; INT_MAX for none
};
struct TopOf {
  template <typename Real> FG_HD Top<Real> operator()(const Top<Real>& a, const Top<Real>& b) const {
    const bool first = a.max > b.max || (a.max == b.max && a.largest < b.largest);
    return {first ? a.max : b.max, first ? a.largest : b.largest,
            a.invalid < b.invalid ? a.invalid : b.invalid};
  }
};

struct Sums {
  std::int64_t sum, squares;

  FG_HD Sums operator+(const Sums& other) const { return {sum + other.sum, squares + other.squares}; }
};

// What the block weighs, known to every thread; `invalid` is the first item that is refused, or INT_MAX.
// Nothing is weighed then.
template <int threads, int items, typename Real>
__device__ Weighed weigh_run(const Real (&run)[items], std::int32_t& invalid) {
  const int first = static_cast<int>(threadIdx.x) * items;
  Top<Real> top{-static_cast<Real>(INFINITY), INT_MAX, INT_MAX};
  FG_UNROLL
  for (int j = 0; j < items; ++j) {
    if (!(run[j] <= static_cast<Real>(kMaxLogWeight)))
      top.invalid = top.invalid < first + j ? top.invalid : first + j;
    else if (run[j] >= static_cast<Real>(-kMaxLogWeight) && run[j] > top.max)
      top = {run[j], first + j, top.invalid};
  }
  top = reduce<threads>(top, TopOf{});
  invalid = top.invalid;
  const bool empty = top.largest == INT_MAX || top.invalid != INT_MAX;
  const std::int32_t exponent = empty ? 0 : block_exponent(static_cast<double>(top.max));
  Sums sums{};
  FG_UNROLL
  for (int j = 0; j < items; ++j) {
    const std::int64_t w = empty ? 0 : scaled_weight(run[j], exponent), high = w >> kSquareDrop;
    sums.sum += w;
    sums.squares += high * high;
  }
  sums = reduce<threads>(sums, Plus{});
  return {sums.sum, sums.squares, empty ? -static_cast<double>(INFINITY) : static_cast<double>(top.max),
          exponent,
          top.invalid != INT_MAX ? -1
          : empty                ? 0
                                 : top.largest};
}

} // namespace fg::cuda
