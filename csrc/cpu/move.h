// move: gather the rows of several state tensors by ancestors.
#pragma once

#include <cstdint>

#include "cpu/status.h"

namespace fg {

struct MoveArgs {
  const void* const* sources;    // one [groups * rows, row_bytes] block a tensor
  void* const* targets;          // one [groups * draws, row_bytes] block a tensor, distinct from its source
  const std::int64_t* row_bytes; // bytes of a row, a tensor
  std::int64_t tensors;
  const std::int32_t* ancestors; // [groups, draws], each in [0, rows)
  std::int64_t groups, rows, draws;
  int threads;
};

#define FG_MOVE_KERNELS(X) X(move, MoveArgs)

} // namespace fg
