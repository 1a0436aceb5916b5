#include "bind/register.h"

namespace fg {

void register_select(pybind11::module_& m) {
  m.def("select",
        [](std::uintptr_t log_weights, bool is_double, std::int64_t groups, std::int64_t parents, std::int64_t items,
           std::int64_t draws, int rule, bool slots, std::uintptr_t seeds, std::uint64_t seed, std::int64_t step,
           std::uintptr_t ancestors, std::uintptr_t log_mean_weight, std::uintptr_t ess, int threads) {
          return run(kernels().select,
                     SelectArgs{pointer<const void>(log_weights), is_double, groups, parents, items, draws,
                                static_cast<Rule>(rule), slots,
                                Seeds{pointer<const std::int64_t>(seeds), seed}, step,
                                pointer<std::int32_t>(ancestors), pointer<double>(log_mean_weight),
                                pointer<double>(ess), threads});
        });
}

} // namespace fg
