// The values of a few rows by one thread, for kernels that put threads to work on them.
#pragma once

#include <cstdint>

#include "cpu/evaluate.h"

namespace fg::FG_LEVEL {

constexpr std::int64_t kValueRows = 1024; // most rows of a call: a multiple of every tile

// Bytes of workspace that a thread needs.
std::int64_t value_bytes(const EvaluateArgs& a);

// Multiply-adds, look-ups or elements read, whichever is most, that a row costs.
std::int64_t value_work(const EvaluateArgs& a);

// Writes the values of rows [first, first + count) to out[0 .. count).
Status value_rows(const EvaluateArgs& a, std::int64_t first, std::int64_t count, float* out, void* workspace);

} // namespace fg::FG_LEVEL
