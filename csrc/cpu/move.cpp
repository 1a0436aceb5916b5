#include "cpu/move.h"

#include <cstring>

namespace fg::FG_LEVEL {

Status move(const MoveArgs& a) {
  const std::int64_t total = a.groups * a.draws;
  std::int64_t bad = total;
#pragma omp parallel for num_threads(a.threads) schedule(static) reduction(min : bad)
  for (std::int64_t i = 0; i < total; ++i) {
    const std::int64_t ancestor = a.ancestors[i];
    if (ancestor < 0 || ancestor >= a.rows) {
      bad = i < bad ? i : bad;
      continue;
    }
    const std::int64_t from = i / a.draws * a.rows + ancestor;
    for (std::int64_t k = 0; k < a.tensors; ++k) {
      const std::int64_t n = a.row_bytes[k];
      std::memcpy(static_cast<char*>(a.targets[k]) + i * n, static_cast<const char*>(a.sources[k]) + from * n,
                  static_cast<std::size_t>(n));
    }
  }
  return bad < total ? Status{Code::out_of_range, bad} : Status{};
}

} // namespace fg::FG_LEVEL
