#include <array>

#include <pybind11/stl.h>

#include "bind/register.h"
#include "core/seed.h"

namespace fg {

void register_gaussian(pybind11::module_& m) {
  // Addresses of optional tensors are 0 where there is none; without `seeds`, `seed` is expanded for one
  // group; without `coefficients` [4, groups] the four numbers serve every group.
  m.def("gaussian_step",
        [](std::uintptr_t x, std::int64_t x_stride, std::uintptr_t prediction, int prediction_type,
           std::int64_t prediction_stride, std::uintptr_t shift, int shift_type, std::int64_t shift_stride,
           std::uintptr_t children, std::uintptr_t coefficients, const std::array<float, 4>& numbers,
           std::uintptr_t ancestors, bool wide_ancestors, std::uintptr_t slots, bool wide_slots,
           std::uintptr_t seeds, std::uint64_t seed, std::int64_t states, std::int64_t particles,
           std::int64_t groups, std::int64_t branch, std::int64_t size, std::int64_t step, int threads) {
          const std::int64_t expanded = static_cast<std::int64_t>(expand_seed(seed, 0));
          GaussianArgs args{};
          args.x = {pointer<const void>(x), LogitType::float32, x_stride};
          args.prediction = {pointer<const void>(prediction), static_cast<LogitType>(prediction_type),
                             prediction_stride};
          args.shift = {pointer<const void>(shift), static_cast<LogitType>(shift_type), shift_stride};
          args.children = pointer<float>(children);
          args.coefficients = {coefficients ? pointer<const float>(coefficients) : numbers.data(), groups,
                               coefficients != 0};
          args.ancestors = {pointer<const void>(ancestors), wide_ancestors};
          args.slots = {pointer<const void>(slots), wide_slots};
          args.seeds = seeds ? pointer<const std::int64_t>(seeds) : &expanded;
          args.states = states;
          args.particles = particles;
          args.groups = groups;
          args.branch = branch;
          args.size = size;
          args.step = step;
          args.threads = threads;
          return run(kernels().gaussian_step, args);
        });
}

} // namespace fg
