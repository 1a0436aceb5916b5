#include <vector>

#include <pybind11/stl.h>

#include "bind/register.h"

namespace fg {

void register_evaluate(pybind11::module_& m) {
  m.def("evaluate", [](int kind, std::uintptr_t states, int type, std::int64_t rows, std::int64_t columns,
                       const std::vector<std::uintptr_t>& parameters,
                       const std::vector<std::int64_t>& settings, std::uintptr_t out, int threads) {
    std::vector<const float*> from;
    for (std::uintptr_t p : parameters)
      from.push_back(pointer<const float>(p));
    return run(kernels().evaluate, EvaluateArgs{static_cast<ValueKind>(kind), pointer<const void>(states),
                                                static_cast<StateType>(type), rows, columns, from.data(),
                                                settings.data(), pointer<float>(out), threads});
  });
}

} // namespace fg
