// move on a GPU: gather the rows of several state tensors by ancestors; as csrc/cpu/move.h.
#pragma once

#include <cstdint>

#include "cuda/status.h"
#include "cuda/stream.h"

namespace fg::cuda {

// Out of range: flat index of the ancestor; invalid value: in place, the flat index of one that names a row
// which does not keep its place. Nothing is written then, nor where the status has such a word already.
struct MoveArgs {
  void* const* sources; // one [groups * rows, row_bytes] block a tensor
  void* const* targets; // one [groups * draws, row_bytes] block a tensor: distinct from its source, or,
                        // all of them, the sources themselves (draws = rows)
  const std::int64_t* row_bytes; // bytes of a row, a tensor
  std::int64_t tensors;          // all three in the host's memory
  const void* ancestors;         // [groups, draws]
  bool wide_ancestors;           // int64, else int32
  std::int64_t groups, rows, draws;
  bool in_place; // then a row that is used must be its own ancestor, and other rows only are written
  std::int64_t* status;
};

void move(const MoveArgs& args, StreamHandle stream);

} // namespace fg::cuda
