// The kernels of the CPU backend, declared once for every SIMD level.
//
// Each takes one struct of raw pointers, sizes and a number of threads, and returns a Status: framework-free,
// so that it can be called, fuzzed and tested without Python. An op's header lists its kernels as X(name,
// Args).
#pragma once

#include "cpu/evaluate.h"
#include "cpu/gaussian_step.h"
#include "cpu/log_ratio.h"
#include "cpu/masked.h"
#include "cpu/move.h"
#include "cpu/select.h"
#include "cpu/status.h"
#include "cpu/unique.h"

#define FG_KERNELS(X)                                                                                        \
  FG_EVALUATE_KERNELS(X)                                                                                     \
  FG_GAUSSIAN_KERNELS(X)                                                                                     \
  FG_LOG_RATIO_KERNELS(X) FG_MASKED_KERNELS(X) FG_MOVE_KERNELS(X) FG_SELECT_KERNELS(X) FG_UNIQUE_KERNELS(X)

namespace fg {

#define FG_DECLARE(name, Args) Status name(const Args&);
namespace portable {
FG_KERNELS(FG_DECLARE)
}
namespace avx2 {
FG_KERNELS(FG_DECLARE)
}
namespace avx512 {
FG_KERNELS(FG_DECLARE)
}
namespace neon {
FG_KERNELS(FG_DECLARE)
}
#undef FG_DECLARE

struct Kernels {
  const char* level;
#define FG_MEMBER(name, Args) Status (*name)(const Args&);
  FG_KERNELS(FG_MEMBER)
#undef FG_MEMBER
};

} // namespace fg
