#include <algorithm>
#include <cmath>

#include "core/categorical.h"
#include "core/philox.h"
#include "logits.h"
#include "trial.h"

namespace fg::trial {
namespace {

template <typename Token> void check_children(const MaskedArgs& a, const Token* children) {
  const Token* tokens = static_cast<const Token*>(a.tokens);
  std::int64_t open = 0, revealed = 0; // of a child: masked before, and now not
  for (std::int64_t i = 0; i < a.particles * a.branch * a.length; ++i) {
    const std::int64_t particle = i / (a.branch * a.length), position = i % a.length;
    const std::int64_t state = a.ancestors.data ? a.ancestors[particle] : particle;
    const std::int64_t group = particle / (a.particles / a.groups);
    const std::int64_t length = a.lengths ? a.lengths[group] : a.length;
    const Token before = tokens[state * a.length + position], after = children[i];
    const bool frozen = a.frozen && a.frozen[state * a.frozen_stride + position];
    const bool was_open = before == a.vocab && position < length;
    if (was_open) {
      FG_REQUIRE(0 <= after && after <= a.vocab);
      ++open;
      revealed += after != a.vocab;
    } else {
      const bool remasked = a.remask_threshold > 0 && after == a.vocab && !frozen && position < length;
      FG_REQUIRE(after == before || remasked);
    }
    if (position + 1 == a.length) {
      const std::int64_t count = a.counts ? a.counts[group] : a.count;
      if (count >= 0)
        FG_REQUIRE(revealed == std::min(count, open));
      else if (a.reveal_threshold == 0)
        FG_REQUIRE(revealed == 0);
      else if (a.reveal_threshold > 0xFFFFFFFF)
        FG_REQUIRE(revealed == open);
      open = revealed = 0;
    }
    if (!was_open)
      continue;
    if (after == a.vocab)
      continue;
    const auto logit = [&](std::int64_t v) {
      const float x =
          to_float(a.logits, a.logit_type, state * a.state_stride + position * a.logits_stride + v);
      return a.bias ? x + a.bias[position * a.bias_stride + v] : x;
    };
    FG_REQUIRE(logit(after) > -INFINITY); // a forbidden token is never drawn
    for (std::int64_t v = 0; a.inverse_temperature == 0 && v < a.vocab; ++v)
      FG_REQUIRE(v < after ? logit(v) < logit(after) : logit(v) <= logit(after));
  }
}

void try_masked(Bytes& bytes, Digest& digest, Status (*Kernels::*kernel)(const MaskedArgs&), bool mode) {
  constexpr float kInverse[] = {0, 1, 1, 2, 0.1f, 1e-30f, 1e30f};
  MaskedArgs a{};
  a.logit_type = static_cast<LogitType>(bytes.in(0, 2));
  a.wide_tokens = bytes.chance(60);
  a.vocab = bytes.chance(50) ? bytes.in(1, 33) : bytes.chance(60) ? bytes.in(1, 520) : bytes.in(1, 9000);
  a.states = bytes.in(1, 6);
  a.length = a.vocab > 600 ? bytes.in(1, 8) : bytes.chance(80) ? bytes.in(1, 70) : bytes.in(1, 400);
  a.groups = bytes.in(1, 4);
  a.branch = mode ? 1 : bytes.in(1, 5);
  const bool moved = !mode && bytes.chance(60);
  a.groups = moved || a.states % a.groups == 0 ? a.groups : 1;
  a.particles = moved ? a.groups * bytes.in(0, 6) : a.states;
  a.reveal_threshold = position_threshold(mode || bytes.chance(30) ? 1.0
                                          : bytes.chance(20)       ? 0.0
                                                                   : bytes.uniform());
  a.inverse_temperature = kInverse[bytes.in(0, 6)];
  a.count = !mode && bytes.chance(30) ? bytes.in(0, a.length + 1) : -1;
  a.confidence = a.count >= 0 && bytes.chance(50);
  a.remask_threshold = position_threshold(!mode && bytes.chance(30) ? bytes.uniform() : 0.0);
  a.top_k = !mode && bytes.chance(25) ? bytes.in(1, a.vocab) : 0;
  a.top_p = !mode && bytes.chance(25) ? share_word(bytes.uniform()) : 0;
  a.step = bytes.in(0, (1 << 28) - 1);
  a.stream = static_cast<std::uint32_t>(mode ? Stream::value : Stream::tokens);

  std::vector<std::int64_t> tokens = indices(bytes, a.states * a.length, a.vocab + 1, bytes.chance(5));
  const int masked = static_cast<int>(bytes.in(0, 100));
  for (std::int64_t& token : tokens)
    token = bytes.chance(masked) ? a.vocab : token;
  const std::vector<std::int64_t> ancestors = indices(bytes, a.particles, a.states, bytes.chance(5));
  std::vector<std::int64_t> slots = indices(bytes, a.particles, 1000, bytes.chance(5));
  const Numbers token_numbers(tokens, a.wide_tokens), ancestor_numbers(ancestors, bytes.chance(50));
  const bool wide_slots = bytes.chance(50);
  if (bytes.chance(10) && a.particles > 0)
    slots[0] = wide_slots ? 0xFFFFFFFF / a.branch : INT32_MAX;
  const Numbers slot_numbers(slots, wide_slots);
  a.tokens = token_numbers.data();
  if (moved)
    a.ancestors = {ancestor_numbers.data(), ancestor_numbers.wide()};
  if (bytes.chance(30))
    a.slots = {slot_numbers.data(), wide_slots};
  std::vector<std::int64_t> seeds, lengths, counts;
  for (std::int64_t g = 0; g < a.groups; ++g) {
    counts.push_back(bytes.in(0, a.length));
    seeds.push_back(static_cast<std::int64_t>(bytes.word() >> 1));
    lengths.push_back(bytes.in(0, a.length));
  }
  a.seeds = seeds.data();
  a.lengths = bytes.chance(30) ? lengths.data() : nullptr;
  a.counts = a.count >= 0 && bytes.chance(50) ? counts.data() : nullptr;
  a.frozen_stride = bytes.chance(50) ? a.length : 0;
  std::vector<unsigned char> frozen(static_cast<std::size_t>(a.states * a.length));
  for (unsigned char& f : frozen)
    f = bytes.chance(30);
  a.frozen = bytes.chance(50) ? frozen.data() : nullptr;

  // A row for all positions, for all states, or padded ones.
  a.logits_stride = bytes.chance(10) ? 0 : a.vocab + (bytes.chance(20) ? bytes.in(1, 5) : 0);
  a.state_stride = bytes.chance(20) ? 0 : a.length * a.logits_stride;
  const std::int64_t count = (a.states - 1) * a.state_stride + (a.length - 1) * a.logits_stride + a.vocab;
  std::vector<float> wide;
  std::vector<std::uint16_t> narrow;
  if (a.logit_type == LogitType::float32)
    wide = numbers<float>(bytes, count);
  else
    narrow = sixteen_bits(bytes, count, a.logit_type, bytes.chance(70));
  a.logits = wide.empty() ? static_cast<const void*>(narrow.data()) : wide.data();
  a.bias_stride = bytes.chance(50) ? a.vocab : 0;
  const std::vector<float> bias = numbers<float>(bytes, (a.bias_stride ? a.length : 1) * a.vocab);
  a.bias = bytes.chance(30) ? bias.data() : nullptr;
  a.shift_stride = bytes.chance(20) ? 0 : a.vocab;
  a.shift_state_stride = a.length * a.shift_stride;
  const std::vector<float> shift = reals(bytes, (a.states * a.length - 1) * a.shift_stride + a.vocab, 3);
  a.shift = !mode && a.inverse_temperature > 0 && bytes.chance(30) ? shift.data() : nullptr;

  const std::vector<Output> blank{Output(a.particles * a.branch * a.length * (a.wide_tokens ? 8 : 4))};
  const Result result =
      agreed(blank, false, [&](const Kernels& kernels, int threads, std::vector<Output>& out) {
        MaskedArgs args = a;
        args.children = out[0].as<void>();
        args.threads = threads;
        return (kernels.*kernel)(args);
      });
  if (moved && a.particles > 0) {
    const auto outside = [&](std::int64_t i) { return i < 0 || i >= a.states; };
    const auto bad = std::find_if(ancestors.begin(), ancestors.end(), outside);
    if (bad != ancestors.end()) {
      FG_REQUIRE(result.status.code == Code::out_of_range);
      FG_REQUIRE(result.status.index == bad - ancestors.begin());
    }
  }
  if (result.status.code == Code::ok) {
    if (a.wide_tokens)
      check_children(a, result.outputs[0].as<std::int64_t>());
    else
      check_children(a, result.outputs[0].as<std::int32_t>());
  }
  result.fold_into(digest);
}

const Registered step("masked_step", [](Bytes& bytes, Digest& digest) {
  try_masked(bytes, digest, &Kernels::masked_step, false);
});
const Registered mode("masked_mode", [](Bytes& bytes, Digest& digest) {
  try_masked(bytes, digest, &Kernels::masked_mode, true);
});

} // namespace
} // namespace fg::trial
