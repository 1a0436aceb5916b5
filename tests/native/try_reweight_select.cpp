#include <cmath>
#include <cstring>

#include "trial.h"

namespace fg::trial {
namespace {

template <typename Real> void check_groups(const ReweightSelectArgs& a, const std::vector<Output>& out) {
  const auto* log_weights = out[0].as<Real>();
  const auto* ancestors = out[3].as<std::int32_t>();
  for (std::int64_t g = 0; g < a.groups; ++g) {
    const bool resampled = out[4].as<bool>()[g];
    const double increment = out[5].as<double>()[g], ess = out[6].as<double>()[g];
    FG_REQUIRE(ess == 0 || (1 <= ess && ess <= static_cast<double>(a.items)));
    FG_REQUIRE(resampled == (ess > 0 && ess < a.ess_threshold * static_cast<double>(a.items)));
    FG_REQUIRE(resampled ? std::isfinite(increment) : ess > 0 ? increment == 0 : increment == -INFINITY);
    for (std::int64_t i = g * a.items; i < (g + 1) * a.items; ++i) {
      const std::int64_t own = i - g * a.items, from = g * a.items + ancestors[i];
      FG_REQUIRE(0 <= ancestors[i] && ancestors[i] < a.items);
      FG_REQUIRE(ancestors[from] == ancestors[i]); // survivors keep their slots
      FG_REQUIRE(resampled ? log_weights[i] == 0 : ancestors[i] == own);
      FG_REQUIRE(
          !std::memcmp(out[1].as<Real>() + i, static_cast<const Real*>(a.values) + from, sizeof(Real)));
      if (a.running) {
        const std::size_t n = static_cast<std::size_t>(a.running_bytes);
        FG_REQUIRE(!std::memcmp(out[2].bytes().data() + static_cast<std::size_t>(i) * n,
                                static_cast<const char*>(a.running) + static_cast<std::size_t>(from) * n, n));
      }
    }
  }
}

template <typename Real> void try_groups(Bytes& bytes, Digest& digest, ReweightSelectArgs a) {
  const std::int64_t n = a.groups * a.items, size = n * static_cast<std::int64_t>(sizeof(Real));
  std::vector<Real> inputs[4];
  for (std::vector<Real>& input : inputs)
    input = numbers<Real>(bytes, n);
  if (bytes.chance(80)) // what was worth nothing has died
    for (std::size_t i = 0; i < inputs[0].size(); ++i)
      inputs[0][i] = inputs[2][i] == -INFINITY ? inputs[2][i] : inputs[0][i];
  a.log_weights = inputs[0].data();
  a.values = inputs[1].data();
  a.previous_values = inputs[2].data();
  a.log_ratio = bytes.chance(50) ? inputs[3].data() : nullptr;
  std::vector<unsigned char> running(static_cast<std::size_t>(n * 8));
  for (unsigned char& byte : running)
    byte = static_cast<unsigned char>(bytes.word(1));
  a.running = bytes.chance(50) ? running.data() : nullptr;
  a.running_bytes = bytes.chance(50) ? 4 : 8;
  a.is_double = sizeof(Real) == 8;
  std::vector<std::int64_t> seeds;
  std::vector<double> betas, previous_betas;
  for (std::int64_t g = 0; g < a.groups; ++g) {
    seeds.push_back(static_cast<std::int64_t>(bytes.word() >> 1));
    betas.push_back(bytes.normal());
    previous_betas.push_back(bytes.chance(30) ? 0 : bytes.normal());
  }
  a.seeds = {bytes.chance(50) ? seeds.data() : nullptr, bytes.word()};
  a.betas = bytes.chance(50) ? betas.data() : nullptr;
  a.previous_betas = bytes.chance(50) ? previous_betas.data() : nullptr;

  const std::vector<Output> blank{Output(size),        Output(size),     Output(n * a.running_bytes),
                                  Output(n * 4),       Output(a.groups), Output(a.groups * 8),
                                  Output(a.groups * 8)};
  const Result result =
      agreed(blank, true, [&](const Kernels& kernels, int threads, std::vector<Output>& out) {
        ReweightSelectArgs args = a;
        args.new_log_weights = out[0].as<void>();
        args.new_values = out[1].as<void>();
        args.new_running = out[2].as<void>();
        args.ancestors = out[3].as<std::int32_t>();
        args.resampled = out[4].as<bool>();
        args.log_z_increment = out[5].as<double>();
        args.ess = out[6].as<double>();
        args.threads = threads;
        return kernels.reweight_select(args);
      });
  if (!result.outputs.empty())
    check_groups<Real>(a, result.outputs);
  result.fold_into(digest);
}

void try_reweight_select(Bytes& bytes, Digest& digest) {
  constexpr double kThresholds[] = {0, 0.1, 0.5, 1};
  ReweightSelectArgs a{};
  a.rule = static_cast<Rule>(bytes.in(0, 3));
  a.items = bytes.size(100000);
  a.groups = bytes.in(1, a.items < 2000 ? 20 : 2);
  a.beta = bytes.normal();
  a.previous_beta = bytes.normal();
  a.ess_threshold = kThresholds[bytes.in(0, 3)];
  a.step = bytes.in(0, (1 << 28) - 1);
  if (bytes.chance(50))
    try_groups<float>(bytes, digest, a);
  else
    try_groups<double>(bytes, digest, a);
}

const Registered registered("reweight_select", try_reweight_select);

} // namespace
} // namespace fg::trial
