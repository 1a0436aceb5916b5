// move: gather the rows of several state tensors by ancestors.
#pragma once

#include <cstdint>

#include "cpu/status.h"

namespace fg {

struct MoveArgs {
  const void* const* sources; // one [groups * rows, row_bytes] block a tensor
  void* const* targets;       // one [groups * draws, row_bytes] block a tensor: distinct from its source, or,
                              // all of them, the sources themselves (draws = rows)
  const std::int64_t* row_bytes; // bytes of a row, a tensor
  std::int64_t tensors;
  const void* ancestors; // [groups, draws], each in [0, rows)
  bool wide_ancestors;   // int64, else int32
  std::int64_t groups, rows, draws;
  bool in_place; // then a row that is used must be its own ancestor, and other rows only are written
  int threads;
};

// Codes: out_of_range: flat index of the ancestor; invalid_value: in place, the flat index of one that names
// a row which does not keep its place. Nothing is written then.
#define FG_MOVE_KERNELS(X) X(move, MoveArgs)

} // namespace fg
