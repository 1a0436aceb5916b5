#include <algorithm>
#include <cmath>
#include <vector>

#include "trial.h"

namespace fg::trial {
namespace {

// What a row of ancestors promises, whatever the rule and the random word.
template <typename Real>
void check_row(const SelectArgs& a, const Real* x, const std::int32_t* ancestors, double log_mean,
               double ess) {
  const double least = -kMaxLogWeight;
  const Real max = *std::max_element(x, x + a.items);
  std::vector<std::int64_t> counts(static_cast<std::size_t>(a.items));
  for (std::int64_t i = 0; i < a.draws; ++i) {
    FG_REQUIRE(0 <= ancestors[i] && ancestors[i] < a.items);
    ++counts[static_cast<std::size_t>(ancestors[i])];
  }
  if (static_cast<double>(max) < least) { // nothing to draw from
    FG_REQUIRE(log_mean == -INFINITY && ess == 0);
    for (std::int64_t i = 0; i < a.draws; ++i)
      FG_REQUIRE(ancestors[i] == i % a.items);
    return;
  }
  FG_REQUIRE(1 <= ess && ess <= static_cast<double>(a.items));
  double sum = 0;
  for (std::int64_t i = 0; i < a.items; ++i)
    sum += std::exp(static_cast<double>(x[i]) - static_cast<double>(max));
  const double exact = static_cast<double>(max) + std::log(sum / static_cast<double>(a.items));
  FG_REQUIRE(std::fabs(log_mean - exact) <= 1e-6 + 1e-15 * std::fabs(exact));

  const double n = static_cast<double>(a.items), k = static_cast<double>(a.draws);
  for (std::int64_t i = 0; i < a.items; ++i) {
    const std::int64_t count = counts[static_cast<std::size_t>(i)];
    FG_REQUIRE(count == 0 || static_cast<double>(x[i]) >= least);
    const double share = k * std::exp(static_cast<double>(x[i]) - static_cast<double>(max)) / sum;
    // The error of float weights, and of offsets of 1e9, whose product with log2(e) rounds at 2^-23.
    const double error = 1e-6 * share + n * k * 0x1p-49 + 1e-9;
    if (a.rule == Rule::systematic)
      FG_REQUIRE(std::fabs(static_cast<double>(count) - share) <= 1 + error);
    if (a.rule == Rule::stratified)
      FG_REQUIRE(std::fabs(static_cast<double>(count) - share) <= 2 + error);
    if (a.rule == Rule::residual)
      FG_REQUIRE(static_cast<double>(count) >= share - 1 - error);
    if (a.slots)
      FG_REQUIRE(count == 0 || ancestors[i] == i);
  }
  if (a.rule < Rule::argmax && !a.slots)
    FG_REQUIRE(std::is_sorted(ancestors, ancestors + a.draws));
  const std::int64_t first = std::find(x, x + a.items, max) - x;
  if (a.rule == Rule::argmax)
    FG_REQUIRE(counts[static_cast<std::size_t>(first)] == a.draws);
  if (a.rule == Rule::topk && !a.slots) {
    FG_REQUIRE(ancestors[0] == first);
    const std::int64_t able =
        std::count_if(x, x + a.items, [&](Real v) { return static_cast<double>(v) >= least; });
    for (std::int64_t i = 1; i < std::min(able, a.draws); ++i) {
      const Real before = x[ancestors[i - 1]], here = x[ancestors[i]];
      FG_REQUIRE(before > here || (before == here && ancestors[i - 1] < ancestors[i]));
    }
  }
}

template <typename Real> void try_row(Bytes& bytes, Digest& digest, SelectArgs a) {
  const std::int64_t rows = a.groups * a.parents;
  std::vector<Real> x;
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::vector<Real> row = numbers<Real>(bytes, a.items);
    x.insert(x.end(), row.begin(), row.end());
  }
  std::vector<std::int64_t> seeds;
  for (std::int64_t g = 0; g < a.groups; ++g)
    seeds.push_back(static_cast<std::int64_t>(bytes.word() >> 1));
  a.log_weights = x.data();
  a.is_double = sizeof(Real) == 8;
  a.seeds = {bytes.chance(50) ? seeds.data() : nullptr, bytes.word()};

  const std::vector<Output> blank{Output(rows * a.draws * 4), Output(rows * 8), Output(rows * 8)};
  const Result result =
      agreed(blank, true, [&](const Kernels& kernels, int threads, std::vector<Output>& out) {
        SelectArgs args = a;
        args.ancestors = out[0].as<std::int32_t>();
        args.log_mean_weight = out[1].as<double>();
        args.ess = out[2].as<double>();
        args.threads = threads;
        return kernels.select(args);
      });
  const auto refused = [](Real v) { return !(static_cast<double>(v) <= kMaxLogWeight); };
  const std::int64_t first = std::find_if(x.begin(), x.end(), refused) - x.begin();
  FG_REQUIRE((result.status.code == Code::invalid_value) == (first < rows * a.items));
  if (result.status.code == Code::invalid_value)
    FG_REQUIRE(result.status.index == first);
  for (std::int64_t r = 0; r < rows && !result.outputs.empty(); ++r)
    check_row(a, x.data() + r * a.items, result.outputs[0].as<std::int32_t>() + r * a.draws,
              result.outputs[1].as<double>()[r], result.outputs[2].as<double>()[r]);
  result.fold_into(digest);
}

void try_select(Bytes& bytes, Digest& digest) {
  SelectArgs a{};
  a.rule = static_cast<Rule>(bytes.in(0, 6));
  a.slots = bytes.chance(40);
  a.items = bytes.size(150000);
  const bool small = a.items < 2000;
  a.groups = bytes.in(1, small ? 40 : 2);
  a.parents = bytes.in(1, small ? 3 : 1);
  a.draws = a.slots ? a.items : bytes.in(1, a.rule >= Rule::argmax ? a.items : 2 * a.items + 20);
  a.step = bytes.in(0, (1 << 28) - 1);
  if (bytes.chance(50))
    try_row<float>(bytes, digest, a);
  else
    try_row<double>(bytes, digest, a);
}

const Registered registered("select", try_select);

} // namespace
} // namespace fg::trial
