#include "bind/register.h"

namespace fg {

void register_unique(pybind11::module_& m) {
  m.def("unique", [](std::uintptr_t rows, std::int64_t count, std::int64_t row_bytes, std::uint64_t hash_mask,
                     std::uintptr_t representatives, std::uintptr_t inverse, std::uintptr_t counts,
                     int threads) {
    std::int64_t distinct = 0;
    const auto [code, index] = run(
        kernels().unique, UniqueArgs{pointer<const void>(rows), count, row_bytes, hash_mask,
                                     pointer<std::int64_t>(representatives), pointer<std::int64_t>(inverse),
                                     pointer<std::int64_t>(counts), &distinct, threads});
    return pybind11::make_tuple(code, index, distinct);
  });
}

} // namespace fg
