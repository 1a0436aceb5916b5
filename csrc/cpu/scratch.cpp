#include "cpu/scratch.h"

#include <atomic>
#include <cstdlib>

#include "cpu/pages.h"

namespace fg {
namespace {

constexpr std::int64_t kLine = 64;
constexpr std::int64_t kKept = std::int64_t{64} << 20;

// Stands one line before the data.
struct Header {
  std::int64_t bytes;
};

std::atomic<char*> kept{nullptr};

std::int64_t bytes_of(const char* block) {
  return reinterpret_cast<const Header*>(block)->bytes;
}

} // namespace

void* borrow_scratch(std::int64_t bytes) {
  char* block = kept.exchange(nullptr);
  if (block == nullptr || bytes_of(block) < bytes) {
    std::free(block);
    const std::int64_t all = (bytes + 2 * kLine - 1) / kLine * kLine;
    block = static_cast<char*>(std::aligned_alloc(kLine, static_cast<std::size_t>(all)));
    if (block == nullptr)
      return nullptr;
    *reinterpret_cast<Header*>(block) = {bytes};
    if (bytes > 2 * kHugePage)
      advise_huge_pages(block, all);
  }
  return block + kLine;
}

void return_scratch(void* data) {
  if (data == nullptr)
    return;
  char* block = static_cast<char*>(data) - kLine;
  std::free(bytes_of(block) <= kKept ? kept.exchange(block) : block);
}

} // namespace fg
