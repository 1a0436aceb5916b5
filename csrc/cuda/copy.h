// Rows copied by a block of threads, in vectors as wide as rows and addresses allow, several of a thread in
// flight: a row of 16 bytes and more is read and written in whole sectors.
#pragma once

#include <cstdint>

#include "cuda/device.h"
#include "cuda/moving.h"

namespace fg::cuda {

struct alignas(16) Bytes16 {
  std::uint64_t words[2];
};

// Which row goes where; none where `target` is negative.
struct Way {
  std::int64_t source, target;
};

constexpr int kCopies = 4; // vectors of a thread in flight

template <typename Vector, int threads, typename WayOf>
__device__ void copy_vectors(const Moving& moving, std::int64_t first, WayOf way_of) {
  const std::int64_t vectors = moving.vectors, stride_rows = threads / vectors, stride = threads % vectors;
  std::int64_t row = first / vectors, column = first % vectors + threadIdx.x;
  if (column >= vectors) {
    const unsigned skipped =
        vectors > threads ? 1 : static_cast<unsigned>(column) / static_cast<unsigned>(vectors);
    row += skipped;
    column -= skipped * vectors;
  }
  Vector moved[kCopies]{};
  std::int64_t to[kCopies];
  FG_UNROLL
  for (int i = 0; i < kCopies; ++i) {
    const Way way = way_of(row);
    to[i] = way.target < 0 ? -1 : way.target * vectors + column;
    if (to[i] >= 0)
      moved[i] = reinterpret_cast<const Vector*>(moving.source)[way.source * vectors + column];
    row += stride_rows;
    column += stride;
    if (column >= vectors) {
      column -= vectors;
      ++row;
    }
  }
  FG_UNROLL
  for (int i = 0; i < kCopies; ++i) {
    if (to[i] >= 0)
      reinterpret_cast<Vector*>(moving.target)[to[i]] = moved[i];
  }
}

// Copies vectors first .. first + threads * kCopies - 1, counted row by row; `way_of` knows rows past the
// last.
template <int threads, typename WayOf>
__device__ void copy_stretch(const Moving& moving, std::int64_t first, WayOf way_of) {
  switch (moving.width) {
  case 16:
    return copy_vectors<Bytes16, threads>(moving, first, way_of);
  case 8:
    return copy_vectors<std::uint64_t, threads>(moving, first, way_of);
  case 4:
    return copy_vectors<std::uint32_t, threads>(moving, first, way_of);
  case 2:
    return copy_vectors<std::uint16_t, threads>(moving, first, way_of);
  default:
    return copy_vectors<std::uint8_t, threads>(moving, first, way_of);
  }
}

} // namespace fg::cuda
