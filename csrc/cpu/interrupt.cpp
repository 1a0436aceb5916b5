#include "cpu/interrupt.h"

#include <algorithm>
#include <chrono>

namespace fg {

bool (*interrupt_poll)() = nullptr;

bool Interrupt::look() {
  constexpr std::int64_t kLook = 1'000'000, kPoll = 50'000'000;
  const std::int64_t now = std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
  if (looked_ == 0)
    polled_ = now;
  else
    between_looks_ =
        now - looked_ < kLook ? std::min(2 * between_looks_, 1 << 16) : std::max(between_looks_ / 2, 1);
  looked_ = now;
  until_look_ = between_looks_;
  if (now - polled_ < kPoll || interrupt_poll == nullptr)
    return false;
  polled_ = now;
  if (!interrupt_poll())
    return false;
  __atomic_store_n(&stopped_, true, __ATOMIC_RELAXED);
  return true;
}

} // namespace fg
