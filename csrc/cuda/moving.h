// What a launch moves, for those who only say so and need no headers of CUDA's.
#pragma once

#include <cstdint>

namespace fg::cuda {

// A state tensor and where it goes, the same for a move in place.
struct Moving {
  const char* source;
  char* target;
  std::int64_t vectors; // of a row
  int width;            // bytes of a vector
};

inline Moving make_moving(const void* source, void* target, std::int64_t row_bytes) {
  const auto bits = reinterpret_cast<std::uintptr_t>(source) | reinterpret_cast<std::uintptr_t>(target) |
                    static_cast<std::uintptr_t>(row_bytes) | 16u;
  const int width = static_cast<int>(bits & -bits);
  return {static_cast<const char*>(source), static_cast<char*>(target), row_bytes / width, width};
}

} // namespace fg::cuda
