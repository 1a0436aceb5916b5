// The token of each masked position: the likeliest, or (a positive inverse temperature) one drawn as
// masked_step draws at a reveal probability of one.
#include "cpu/masked.h"

#include "cpu/interrupt.h"
#include "cpu/kernels.h"
#include "cpu/open_positions.h"
#include "cpu/small_modes.h"
#include "cpu/token_row.h"

namespace fg::FG_LEVEL {
namespace {

constexpr std::int64_t kBatch = 32; // chunks of 64 positions whose rows are listed at a time
constexpr std::int64_t kAhead = 48; // rows: alone, each would be waited for

// Fills in the tokens of `n` rows; `rows` has room for a register more. Meanwhile fetches rows further on and
// the tokens of the next batch, whose scan would wait for every line that it reads and writes.
template <typename Token, typename Logit>
FG_HD void fill(OpenRow<Logit>* rows, std::int64_t n, const MaskedArgs& a, Token* filled, Trouble& trouble) {
  using Small = SmallModes<Logit>;
  const Small small(a.vocab, a.bias != nullptr);
  const std::int64_t ahead = kBatch * (a.length < 64 ? a.length : 64); // tokens of a batch
  const std::int64_t step = a.vocab <= Small::kMostTokens ? Small::kRows : 1;
  for (std::int64_t i = 0; i < n; i += step) {
    const std::int64_t some = n - i < step ? n - i : step;
    for (std::int64_t r = i + kAhead; r < i + kAhead + step && r < n; ++r) {
      __builtin_prefetch(rows[r].x);
      __builtin_prefetch(rows[r].x + (a.vocab < 64 ? a.vocab : 64) - 1);
    }
    for (std::int64_t r = i; r < i + some; r += 4) {
      __builtin_prefetch(static_cast<const Token*>(a.tokens) + rows[r].at + ahead);
      __builtin_prefetch(filled + rows[r].at + ahead, 1);
    }
    for (std::int64_t r = some; r < step; ++r)
      rows[i + r] = rows[i];
    if (step > 1 && small.find(rows + i, filled))
      continue;
    for (std::int64_t r = i; r < i + some; ++r) {
      std::int64_t token = 0;
      const Code code = largest_token(rows[r].x, rows[r].bias, a.vocab, token);
      if (code != Code::ok)
        trouble.add(rows[r].at, code);
      filled[rows[r].at] = static_cast<Token>(token);
    }
  }
}

template <typename Token, typename Logit> Status likeliest(const MaskedArgs& a) {
  const Token* tokens = static_cast<const Token*>(a.tokens);
  Token* filled = static_cast<Token*>(a.children);
  const std::int64_t per_group = a.states / a.groups, chunks = (a.length + 63) / 64;
  const double nanoseconds = static_cast<double>(a.states) * static_cast<double>(a.length) *
                             (5.0 + 0.1 * static_cast<double>(a.vocab));
  const int threads = nanoseconds < 15e3 ? 1 : a.threads;
  const std::int64_t count = a.states * chunks, together = a.vocab <= kTokenBlock ? kBatch : 1;
  Interrupt interrupt;
  std::int64_t first_range = Trouble::kNone, first_row = Trouble::kNone;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1 + 4096 / (a.vocab * kBatch))               \
    reduction(min : first_range, first_row)
  for (std::int64_t batch = 0; batch < count; batch += together) {
    if (interrupt.requested())
      continue;
    Trouble range{first_range}, row{first_row};
    const std::int64_t end = batch + together < count ? batch + together : count;
    // All tokens before all rows: a branch on what a scan finds would hold up the loads of the next.
    std::uint64_t open[kBatch] = {};
    for (std::int64_t i = batch; i < end; ++i) {
      const std::int64_t state = i / chunks, chunk = i % chunks, start = state * a.length + 64 * chunk;
      const std::int64_t left = a.length - 64 * chunk < 64 ? a.length - 64 * chunk : 64;
      const std::int64_t length = a.lengths ? a.lengths[state / per_group] : a.length;
      const std::int64_t used = length - 64 * chunk < left ? length - 64 * chunk : left;
      if (used < left)
        __builtin_memcpy(filled + start, tokens + start, static_cast<std::size_t>(left) * sizeof(Token));
      if (used <= 0)
        continue;
      bool strange = false;
      open[i - batch] = masked(tokens + start, static_cast<int>(used), a.vocab, strange, filled + start);
      if (strange)
        range.add(2 * a.particles + start + first_strange(tokens + start, a.vocab), Code::out_of_range);
    }
    OpenRow<Logit> rows[64 * kBatch + SmallModes<Logit>::kRows];
    std::int64_t listed = 0;
    for (std::int64_t i = batch; i < end; ++i) {
      const std::int64_t state = i / chunks, chunk = i % chunks, start = state * a.length + 64 * chunk;
      const Logit* x = static_cast<const Logit*>(a.logits) + state * a.state_stride;
      for (std::uint64_t bits = open[i - batch]; bits; bits &= bits - 1) {
        const int bit = __builtin_ctzll(bits);
        const std::int64_t position = 64 * chunk + bit;
        rows[listed++] = {x + position * a.logits_stride,
                          a.bias ? a.bias + position * a.bias_stride : nullptr, start + bit};
      }
    }
    fill(rows, listed, a, filled, row);
    first_range = range.key;
    first_row = row.key;
  }
  if (interrupt.requested())
    return {Code::interrupted, -1};
  return first_range != Trouble::kNone ? Trouble{first_range}.status() : Trouble{first_row}.status();
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
