#include <vector>

#include <pybind11/stl.h>

#include "bind/register.h"

namespace fg {

void register_move(pybind11::module_& m) {
  m.def("move", [](const std::vector<std::uintptr_t>& sources, const std::vector<std::uintptr_t>& targets,
                   const std::vector<std::int64_t>& row_bytes, std::uintptr_t ancestors, bool wide_ancestors,
                   std::int64_t groups, std::int64_t rows, std::int64_t draws, bool in_place, int threads) {
    std::vector<const void*> from;
    std::vector<void*> to;
    for (std::uintptr_t s : sources)
      from.push_back(pointer<const void>(s));
    for (std::uintptr_t t : targets)
      to.push_back(pointer<void>(t));
    return run(kernels().move,
               MoveArgs{from.data(), to.data(), row_bytes.data(), static_cast<std::int64_t>(row_bytes.size()),
                        pointer<const void>(ancestors), wide_ancestors, groups, rows, draws, in_place,
                        threads});
  });
}

} // namespace fg
