// gaussian_step: children of Gaussian reverse steps, their noise made on the way.
#pragma once

#include <cstdint>

#include "cpu/masked.h"
#include "cpu/status.h"

namespace fg {

// A tensor [states, size] whose rows are contiguous, `stride` elements apart.
struct FloatRows {
  const void* data; // may be null where the op's text says so
  LogitType type;
  std::int64_t stride;
};

// Of one group each: child = x * of x + prediction * of prediction + shift * of shift + sigma * noise.
struct GaussianCoefficients {
  const float* data; // [4, groups] (x, prediction, shift, sigma), or [4] for all groups
  std::int64_t groups;
  bool each;

  float of_x(std::int64_t g) const { return at(0, g); }
  float of_prediction(std::int64_t g) const { return at(1, g); }
  float of_shift(std::int64_t g) const { return at(2, g); }
  float sigma(std::int64_t g) const { return at(3, g); }

private:
  float at(std::int64_t i, std::int64_t g) const { return each ? data[i * groups + g] : data[i]; }
};

struct GaussianArgs {
  FloatRows x;                 // float32
  FloatRows prediction, shift; // shift: or null
  float* children;             // [particles, branch, size]
  GaussianCoefficients coefficients;
  Indices ancestors;         // [particles], in [0, states); default: the identity
  Indices slots;             // [particles], a particle's number in its group; default: its place
  const std::int64_t* seeds; // [groups]
  std::int64_t states, particles, groups, branch, size;
  std::int64_t step;
  int threads;
};

// Codes: out_of_range: index below `particles`, an ancestor; then a slot. Nothing is written then.
#define FG_GAUSSIAN_KERNELS(X) X(gaussian_step, GaussianArgs)

} // namespace fg
