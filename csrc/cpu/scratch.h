// Memory for a kernel's own use.
#pragma once

#include <cstdint>

namespace fg {

// `bytes` bytes aligned to a cache line, or null. The last block given back is kept for the next, up to 64
// MiB: the page faults of fresh memory took several times as long as sorting a million targets in it.
void* borrow_scratch(std::int64_t bytes);
void return_scratch(void* data);

} // namespace fg
