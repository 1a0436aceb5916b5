// How a kernel reports what it met: a code and the first offending index.
#pragma once

#include <cstdint>

namespace fg {

enum class Code : int { ok = 0, invalid_value, degenerate, out_of_range, out_of_memory, interrupted };

struct Status {
  Code code = Code::ok;
  std::int64_t index = -1;
};

} // namespace fg
