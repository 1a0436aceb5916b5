// The token of each masked position: the likeliest, or (a positive inverse temperature) one drawn as
// masked_step draws at a reveal probability of one.
#include "cpu/masked.h"

#include "cpu/kernels.h"
#include "cpu/token_row.h"

namespace fg::FG_LEVEL {
namespace {

template <typename Token, typename Logit> Status likeliest(const MaskedArgs& a) {
  const Token* tokens = static_cast<const Token*>(a.tokens);
  Token* filled = static_cast<Token*>(a.children);
  const std::int64_t all = a.states * a.length, per_group = a.states / a.groups;
  const double nanoseconds = static_cast<double>(all) * (4.0 + 0.1 * static_cast<double>(a.vocab));
  const int threads = nanoseconds < 15e3 ? 1 : a.threads;
  std::int64_t trouble = INT64_MAX, strange = INT64_MAX;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1 + 65536 / a.vocab)                         \
    reduction(min : trouble, strange)
  for (std::int64_t i = 0; i < all; ++i) {
    const std::int64_t state = i / a.length, position = i % a.length;
    const std::int64_t old = static_cast<std::int64_t>(tokens[i]);
    filled[i] = tokens[i];
    if (a.lengths && position >= a.lengths[state / per_group])
      continue;
    if (old != a.vocab) {
      if ((old < 0 || old > a.vocab) && i < strange)
        strange = i;
      continue;
    }
    const Logit* row =
        static_cast<const Logit*>(a.logits) + state * a.state_stride + position * a.logits_stride;
    std::int64_t token = 0;
    const Code code =
        largest_token(row, a.bias ? a.bias + position * a.bias_stride : nullptr, a.vocab, token);
    const std::int64_t key = i * 8 + static_cast<int>(code);
    if (code != Code::ok)
      trouble = key < trouble ? key : trouble;
    filled[i] = static_cast<Token>(token);
  }
  if (strange != INT64_MAX)
    return {Code::out_of_range, 2 * a.particles + strange};
  return trouble == INT64_MAX ? Status{} : Status{static_cast<Code>(trouble & 7), trouble >> 3};
}

template <typename Token> Status likeliest_of(const MaskedArgs& a) {
  switch (a.logit_type) {
  case LogitType::float32:
    return likeliest<Token, float>(a);
  case LogitType::float16:
    return likeliest<Token, Half>(a);
  case LogitType::bfloat16:
    return likeliest<Token, BFloat16>(a);
  }
  return {Code::invalid_value, -1};
}

} // namespace

Status masked_mode(const MaskedArgs& a) {
  if (a.inverse_temperature != 0)
    return masked_step(a);
  if (a.states == 0 || a.length == 0)
    return {};
  return a.wide_tokens ? likeliest_of<std::int64_t>(a) : likeliest_of<std::int32_t>(a);
}

} // namespace fg::FG_LEVEL
