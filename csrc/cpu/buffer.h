// Workspace of a kernel: malloc, because a standard container would emit code above the baseline under a
// shared name.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace fg::FG_LEVEL {

// Holds trivial entries, uninitialised. `data` is null where there was no memory.
template <typename T> struct Buffer {
  T* data = nullptr;

  Buffer() = default;
  explicit Buffer(std::int64_t count) { resize(count); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data); }

  // Loses what it held.
  void resize(std::int64_t count) {
    std::free(data);
    data = static_cast<T*>(std::malloc(static_cast<std::size_t>(count > 0 ? count : 1) * sizeof(T)));
  }
  T& operator[](std::int64_t i) { return data[i]; }
  const T& operator[](std::int64_t i) const { return data[i]; }
};

} // namespace fg::FG_LEVEL
