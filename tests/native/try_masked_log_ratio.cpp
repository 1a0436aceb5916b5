#include <cmath>

#include "core/categorical.h"
#include "logits.h"
#include "trial.h"

namespace fg::trial {
namespace {

void try_masked_log_ratio(Bytes& bytes, Digest& digest) {
  MaskedLogRatioArgs a{};
  a.wide_tokens = bytes.chance(50);
  a.vocab = bytes.chance(60) ? bytes.in(1, 40) : bytes.in(1, 1500);
  a.states = bytes.in(1, 5);
  a.length = a.vocab > 600 ? bytes.in(1, 8) : bytes.in(1, 150);
  a.branch = bytes.in(1, 4);
  a.groups = bytes.in(1, 3);
  const bool moved = bytes.chance(60);
  a.groups = moved || a.states % a.groups == 0 ? a.groups : 1;
  a.particles = moved ? a.groups * bytes.in(0, 5) : a.states;
  a.inverse_temperature = bytes.chance(50) ? 1.0f : 2.0f;
  a.top_k = bytes.chance(20) ? bytes.in(1, a.vocab) : 0;
  a.top_p = bytes.chance(20) ? share_word(bytes.uniform()) : 0;

  std::vector<std::int64_t> tokens = indices(bytes, a.states * a.length, a.vocab + 1, bytes.chance(5));
  const int masked = static_cast<int>(bytes.in(0, 100));
  for (std::int64_t& token : tokens)
    token = bytes.chance(masked) ? a.vocab : token;
  const std::vector<std::int64_t> ancestors = indices(bytes, a.particles, a.states, bytes.chance(5));
  const std::vector<std::int64_t> children =
      indices(bytes, a.particles * a.branch * a.length, a.vocab + 1, bytes.chance(5));
  const Numbers token_numbers(tokens, a.wide_tokens), child_numbers(children, a.wide_tokens),
      ancestor_numbers(ancestors, bytes.chance(50));
  a.tokens = token_numbers.data();
  a.children = child_numbers.data();
  if (moved)
    a.ancestors = {ancestor_numbers.data(), ancestor_numbers.wide()};
  std::vector<std::int64_t> lengths;
  for (std::int64_t g = 0; g < a.groups; ++g)
    lengths.push_back(bytes.in(0, a.length));
  a.lengths = bytes.chance(30) ? lengths.data() : nullptr;

  const bool plain = bytes.chance(70);
  const std::int64_t count = a.states * a.length * a.vocab;
  const std::vector<float> hostile = numbers<float>(bytes, plain ? 0 : count);
  const Reals finite(bytes, plain ? count : 0);
  a.logits = plain ? finite.data() : hostile.data();
  a.logit_type = plain ? finite.type() : LogitType::float32;
  a.logits_stride = a.shift_stride = a.vocab;
  a.state_stride = a.shift_state_stride = a.length * a.vocab;
  const std::vector<float> shift = reals(bytes, count, 3), bias = reals(bytes, a.length * a.vocab);
  a.shift = shift.data();
  a.bias = bytes.chance(30) ? bias.data() : nullptr;
  a.bias_stride = bytes.chance(50) ? a.vocab : 0;

  const std::vector<Output> blank{Output(a.particles * a.branch * 8)};
  const Result result =
      agreed(blank, false, [&](const Kernels& kernels, int threads, std::vector<Output>& out) {
        MaskedLogRatioArgs args = a;
        args.ratios = out[0].as<double>();
        args.threads = threads;
        return kernels.masked_log_ratio(args);
      });
  for (std::int64_t c = 0; result.status.code == Code::ok && c < a.particles * a.branch; ++c)
    FG_REQUIRE(std::isfinite(result.outputs[0].as<double>()[c]));
  result.fold_into(digest);
}

const Registered registered("masked_log_ratio", try_masked_log_ratio);

} // namespace
} // namespace fg::trial
