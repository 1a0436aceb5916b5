#include "emulated/cuda.h"

#include <memory>
#include <vector>

#include <ucontext.h>

namespace fg::cuda {

Index threadIdx, blockIdx, blockDim, gridDim;

namespace {

constexpr std::size_t kStack = 1 << 16;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStack]};
  bool done = true;
};

std::vector<Fiber> fibers(1024);
ucontext_t scheduler;
const std::function<void()>* current;

void run_thread() {
  const unsigned own = threadIdx.x;
  (*current)();
  fibers[own].done = true;
  swapcontext(&fibers[own].context, &scheduler);
}

} // namespace

bool reversed = false;

void __syncthreads() {
  const unsigned own = threadIdx.x;
  swapcontext(&fibers[own].context, &scheduler);
  threadIdx.x = own;
}

// A round lets every thread run to its next barrier. One that has returned does not count, as on the device.
void run_block(int threads, const std::function<void()>& body) {
  current = &body;
  for (int t = 0; t < threads; ++t) {
    Fiber& fiber = fibers[static_cast<std::size_t>(t)];
    fiber.done = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_thread, 0);
  }
  for (bool any = true; any;) {
    any = false;
    for (int i = 0; i < threads; ++i) {
      const int t = reversed ? threads - 1 - i : i;
      Fiber& fiber = fibers[static_cast<std::size_t>(t)];
      if (fiber.done)
        continue;
      threadIdx = {static_cast<unsigned>(t)};
      swapcontext(&scheduler, &fiber.context);
      any |= !fiber.done;
    }
  }
}

} // namespace fg::cuda
