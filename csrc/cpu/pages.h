// Advice to the system about large memory that is written for the first time.
#pragma once

#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fg {

constexpr std::int64_t kHugePage = std::int64_t{1} << 21;

// Asks for huge pages under [data, data + bytes), which holds nothing yet, and takes them. A first write then
// faults once in 2 MiB, not once in 4 KiB: at 2^23 ancestors the faults took longer than the selection. Taken
// here, by one thread, since threads of a virtual machine that fault side by side were seen to wait for each
// other: 37 ms for 40 MB by two threads, 3 by one. Only advice: where the system does not know it, nothing
// happens but the writes.
static inline void advise_huge_pages(void* data, std::int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const std::uintptr_t page = static_cast<std::uintptr_t>(kHugePage);
  const std::uintptr_t begin = (reinterpret_cast<std::uintptr_t>(data) + page - 1) & ~(page - 1);
  const std::uintptr_t end =
      (reinterpret_cast<std::uintptr_t>(data) + static_cast<std::uintptr_t>(bytes)) & ~(page - 1);
  if (begin >= end)
    return;
  madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  for (std::uintptr_t at = begin; at < end; at += page)
    *reinterpret_cast<volatile char*>(at) = 0;
#else
  (void)data, (void)bytes;
#endif
}

} // namespace fg
