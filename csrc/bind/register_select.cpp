#include "bind/register.h"

namespace fg {

constexpr std::int64_t kKeepLock = 8192; // items and draws, a few microseconds

void register_select(pybind11::module_& m) {
  m.def("select", [](std::uintptr_t log_weights, bool is_double, std::int64_t groups, std::int64_t parents,
                     std::int64_t items, std::int64_t draws, int rule, bool slots, std::uintptr_t seeds,
                     std::uint64_t seed, std::int64_t step, std::uintptr_t ancestors,
                     std::uintptr_t log_mean_weight, std::uintptr_t ess, int threads) {
    const SelectArgs args{pointer<const void>(log_weights),
                          is_double,
                          groups,
                          parents,
                          items,
                          draws,
                          static_cast<Rule>(rule),
                          slots,
                          Seeds{pointer<const std::int64_t>(seeds), seed},
                          step,
                          pointer<std::int32_t>(ancestors),
                          pointer<double>(log_mean_weight),
                          pointer<double>(ess),
                          threads};
    // Giving the lock away and taking it back would be a tenth of a small call.
    if (groups * parents * (items + draws) > kKeepLock)
      return run(kernels().select, args);
    const Status status = kernels().select(args);
    return std::pair{static_cast<int>(status.code), status.index};
  });
  m.def("reweight_select",
        [](std::uintptr_t log_weights, std::uintptr_t values, std::uintptr_t previous_values,
           std::uintptr_t log_ratio, std::uintptr_t running, int running_bytes, bool is_double,
           std::int64_t groups, std::int64_t items, std::uintptr_t betas, std::uintptr_t previous_betas,
           double beta, double previous_beta, int rule, double ess_threshold, std::uintptr_t seeds,
           std::uint64_t seed, std::int64_t step, std::uintptr_t new_log_weights, std::uintptr_t new_values,
           std::uintptr_t new_running, std::uintptr_t ancestors, std::uintptr_t resampled,
           std::uintptr_t log_z_increment, std::uintptr_t ess, int threads) {
          return run(kernels().reweight_select,
                     ReweightSelectArgs{pointer<const void>(log_weights),
                                        pointer<const void>(values),
                                        pointer<const void>(previous_values),
                                        pointer<const void>(log_ratio),
                                        pointer<const void>(running),
                                        running_bytes,
                                        is_double,
                                        groups,
                                        items,
                                        pointer<const double>(betas),
                                        pointer<const double>(previous_betas),
                                        beta,
                                        previous_beta,
                                        static_cast<Rule>(rule),
                                        ess_threshold,
                                        Seeds{pointer<const std::int64_t>(seeds), seed},
                                        step,
                                        pointer<void>(new_log_weights),
                                        pointer<void>(new_values),
                                        pointer<void>(new_running),
                                        pointer<std::int32_t>(ancestors),
                                        pointer<bool>(resampled),
                                        pointer<double>(log_z_increment),
                                        pointer<double>(ess),
                                        threads});
        });
}

} // namespace fg
