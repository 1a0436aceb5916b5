#include "bind/register.h"
#include "core/categorical.h"
#include "core/seed.h"

namespace fg {
namespace {

template <Status (*Kernels::*kernel)(const MaskedArgs&)> void define(pybind11::module_& m, const char* name) {
  // Addresses of optional tensors are 0 where there is none; without `seeds`, `seed` is expanded for one
  // group.
  m.def(name, [](std::uintptr_t tokens, bool wide_tokens, std::uintptr_t children, std::uintptr_t logits,
                 int logit_type, std::int64_t state_stride, std::int64_t logits_stride, std::uintptr_t bias,
                 std::int64_t bias_stride, std::uintptr_t shift, std::int64_t shift_state_stride,
                 std::int64_t shift_stride, std::uintptr_t ancestors, bool wide_ancestors,
                 std::uintptr_t slots, bool wide_slots, std::uintptr_t seeds, std::uint64_t seed,
                 std::uintptr_t lengths, std::int64_t states, std::int64_t particles, std::int64_t groups,
                 std::int64_t branch, std::int64_t length, std::int64_t vocab, double reveal_probability,
                 std::uintptr_t counts, std::int64_t count, bool confidence, double remask_probability,
                 std::uintptr_t frozen, std::int64_t frozen_stride, float inverse_temperature,
                 std::int64_t top_k, double top_p, std::int64_t step, std::uint32_t stream, int threads) {
    const std::int64_t expanded = static_cast<std::int64_t>(expand_seed(seed, 0));
    MaskedArgs args{};
    args.tokens = pointer<const void>(tokens);
    args.wide_tokens = wide_tokens;
    args.children = pointer<void>(children);
    args.logits = pointer<const void>(logits);
    args.logit_type = static_cast<LogitType>(logit_type);
    args.state_stride = state_stride;
    args.logits_stride = logits_stride;
    args.bias = pointer<const float>(bias);
    args.bias_stride = bias_stride;
    args.shift = pointer<const float>(shift);
    args.shift_state_stride = shift_state_stride;
    args.shift_stride = shift_stride;
    args.ancestors = {pointer<const void>(ancestors), wide_ancestors};
    args.slots = {pointer<const void>(slots), wide_slots};
    args.seeds = seeds ? pointer<const std::int64_t>(seeds) : &expanded;
    args.lengths = pointer<const std::int64_t>(lengths);
    args.states = states;
    args.particles = particles;
    args.groups = groups;
    args.branch = branch;
    args.length = length;
    args.vocab = vocab;
    args.reveal_threshold = position_threshold(reveal_probability);
    args.counts = pointer<const std::int64_t>(counts);
    args.count = counts ? 0 : count;
    args.confidence = confidence;
    args.remask_threshold = position_threshold(remask_probability);
    args.frozen = pointer<const unsigned char>(frozen);
    args.frozen_stride = frozen_stride;
    args.inverse_temperature = inverse_temperature;
    args.top_k = top_k < vocab ? top_k : 0;
    args.top_p = top_p < 1.0 ? share_word(top_p) : 0;
    args.step = step;
    args.stream = stream;
    args.threads = threads;
    return run(kernels().*kernel, args);
  });
}

} // namespace

void register_masked(pybind11::module_& m) {
  define<&Kernels::masked_step>(m, "masked_step");
  define<&Kernels::masked_mode>(m, "masked_mode");
}

} // namespace fg
