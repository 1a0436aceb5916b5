// How a long kernel answers Ctrl-C: it asks its call's Interrupt between blocks of work, on every thread.
#pragma once

#include <cstdint>

#include <omp.h>

#include "core/annotations.h"

namespace fg {

// Whether the caller wants its call to end; asked on the thread that called the kernel. Null: never. The
// binding sets it once, before any call.
extern bool (*interrupt_poll)();

// Of one call. Only the calling thread looks at the clock, so that asking costs the others one load; it looks
// the more seldom the shorter the blocks are (once in a call of two, some twenty times in one of a million),
// and polls at most every 50 ms.
class Interrupt {
public:
  FG_HD Interrupt() {}
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  // Once true it stays true. Threads learn of it at different times: one that skips work because of it must
  // still meet the others at their barriers.
  FG_HD bool requested() {
    if (__atomic_load_n(&stopped_, __ATOMIC_RELAXED))
      return true;
    return omp_get_thread_num() == 0 && --until_look_ <= 0 && look();
  }

private:
  bool look();

  // On a line of its own: all threads read it, and what follows is written by one.
  alignas(64) bool stopped_ = false;
  alignas(64) int until_look_ = 2;
  int between_looks_ = 1;
  std::int64_t looked_ = 0, polled_ = 0; // nanoseconds; 0 before the first look
};

} // namespace fg
