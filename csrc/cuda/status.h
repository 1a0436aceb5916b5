// Where kernels write what went wrong.
//
// Of the five words of a status, word c holds the least index at which code c of csrc/cpu/status.h arose; the
// caller sets all to the largest integer before.
#pragma once

#include <cstdint>

namespace fg::cuda {

enum Word { kInvalidValue = 1, kDegenerate = 2, kOutOfRange = 3 };

} // namespace fg::cuda
