#include <array>

#include <pybind11/stl.h>

#include "bind/register.h"

namespace fg {

// Addresses of optional tensors are 0 where there is none; without `coefficients` [4, groups] the four
// numbers serve every group.
void register_log_ratio(pybind11::module_& m) {
  m.def("gaussian_log_ratio",
        [](std::uintptr_t children, std::uintptr_t x, std::int64_t x_stride, std::uintptr_t prediction,
           int prediction_type, std::int64_t prediction_stride, std::uintptr_t shift, int shift_type,
           std::int64_t shift_stride, std::uintptr_t ratios, std::uintptr_t coefficients,
           const std::array<float, 4>& numbers, std::uintptr_t ancestors, bool wide_ancestors,
           std::int64_t states, std::int64_t particles, std::int64_t groups, std::int64_t branch,
           std::int64_t size, int threads) {
          GaussianLogRatioArgs args{};
          args.children = pointer<const float>(children);
          args.x = {pointer<const void>(x), LogitType::float32, x_stride};
          args.prediction = {pointer<const void>(prediction), static_cast<LogitType>(prediction_type),
                             prediction_stride};
          args.shift = {pointer<const void>(shift), static_cast<LogitType>(shift_type), shift_stride};
          args.ratios = pointer<double>(ratios);
          args.coefficients = {coefficients ? pointer<const float>(coefficients) : numbers.data(), groups,
                               coefficients != 0};
          args.ancestors = {pointer<const void>(ancestors), wide_ancestors};
          args.states = states;
          args.particles = particles;
          args.groups = groups;
          args.branch = branch;
          args.size = size;
          args.threads = threads;
          return run(kernels().gaussian_log_ratio, args);
        });
  m.def("masked_log_ratio",
        [](std::uintptr_t tokens, std::uintptr_t children, bool wide_tokens, std::uintptr_t logits,
           int logit_type, std::int64_t state_stride, std::int64_t logits_stride, std::uintptr_t bias,
           std::int64_t bias_stride, std::uintptr_t shift, std::int64_t shift_state_stride,
           std::int64_t shift_stride, std::uintptr_t ratios, std::uintptr_t ancestors, bool wide_ancestors,
           std::uintptr_t lengths, std::int64_t states, std::int64_t particles, std::int64_t groups,
           std::int64_t branch, std::int64_t length, std::int64_t vocab, float inverse_temperature,
           int threads) {
          MaskedLogRatioArgs args{};
          args.tokens = pointer<const void>(tokens);
          args.children = pointer<const void>(children);
          args.wide_tokens = wide_tokens;
          args.logits = pointer<const void>(logits);
          args.logit_type = static_cast<LogitType>(logit_type);
          args.state_stride = state_stride;
          args.logits_stride = logits_stride;
          args.bias = pointer<const float>(bias);
          args.bias_stride = bias_stride;
          args.shift = pointer<const float>(shift);
          args.shift_state_stride = shift_state_stride;
          args.shift_stride = shift_stride;
          args.ratios = pointer<double>(ratios);
          args.ancestors = {pointer<const void>(ancestors), wide_ancestors};
          args.lengths = pointer<const std::int64_t>(lengths);
          args.states = states;
          args.particles = particles;
          args.groups = groups;
          args.branch = branch;
          args.length = length;
          args.vocab = vocab;
          args.inverse_temperature = inverse_temperature;
          args.threads = threads;
          return run(kernels().masked_log_ratio, args);
        });
}

} // namespace fg
