#include <algorithm>
#include <cmath>

#include "logits.h"
#include "trial.h"

namespace fg::trial {
namespace {

// What gaussian_step and gaussian_log_ratio have in common. All numbers are finite: how a NaN comes out may
// differ from one processor to the next.
struct Problem {
  std::int64_t states, particles, groups, branch, size;
  std::vector<std::int64_t> ancestors, slots, seeds;
  Numbers ancestor_numbers, slot_numbers;
  std::int64_t x_stride, prediction_stride, shift_stride;
  std::vector<float> x, coefficients;
  Reals prediction, shift;
  bool moved, own_slots, each;

  explicit Problem(Bytes& bytes)
      : states(bytes.in(1, 5)), particles(0), groups(bytes.in(1, 3)), branch(bytes.in(1, 4)),
        size(bytes.size(6000)), ancestors(indices(bytes, groups * bytes.in(0, 5), states, bytes.chance(5))),
        slots(indices(bytes, std::max(states, static_cast<std::int64_t>(ancestors.size())), 1000,
                      bytes.chance(5))),
        ancestor_numbers(ancestors, bytes.chance(50)), slot_numbers(slots, bytes.chance(50)),
        x_stride(stride(bytes)), prediction_stride(stride(bytes)), shift_stride(stride(bytes)),
        x(reals(bytes, count(x_stride))), prediction(bytes, count(prediction_stride)),
        shift(bytes, count(shift_stride)), moved(bytes.chance(60)), own_slots(bytes.chance(30)),
        each(bytes.chance(50)) {
    if (!moved && states % groups != 0)
      groups = 1;
    particles = moved ? static_cast<std::int64_t>(ancestors.size()) : states;
    for (std::int64_t g = 0; g < groups; ++g)
      seeds.push_back(static_cast<std::int64_t>(bytes.word() >> 1));
    coefficients = reals(bytes, 4 * groups);
  }

  GaussianCoefficients given() const { return {coefficients.data(), groups, each}; }
  FloatRows row_x() const { return {x.data(), LogitType::float32, x_stride}; }
  FloatRows row_prediction() const { return {prediction.data(), prediction.type(), prediction_stride}; }
  FloatRows row_shift() const { return {shift.data(), shift.type(), shift_stride}; }
  Indices given_ancestors() const {
    return moved ? Indices{ancestor_numbers.data(), ancestor_numbers.wide()} : Indices{};
  }
  std::int64_t state_of(std::int64_t particle) const {
    return moved ? ancestors[static_cast<std::size_t>(particle)] : particle;
  }

private:
  std::int64_t stride(Bytes& bytes) const { return bytes.chance(20) ? 0 : size + (bytes.chance(20) ? 3 : 0); }
  std::int64_t count(std::int64_t stride) const { return (states - 1) * stride + size; }
};

void try_step(Bytes& bytes, Digest& digest) {
  Problem p(bytes);
  const bool quiet = bytes.chance(20), shifted = bytes.chance(50);
  const std::size_t sigmas = static_cast<std::size_t>(p.each ? 3 * p.groups : 3);
  for (std::size_t i = sigmas; i < (p.each ? p.coefficients.size() : sigmas + 1); ++i)
    p.coefficients[i] = quiet ? 0.0f : std::fabs(p.coefficients[i]);
  GaussianArgs a{};
  a.x = p.row_x();
  a.prediction = p.row_prediction();
  a.shift = shifted ? p.row_shift() : FloatRows{};
  a.coefficients = p.given();
  a.ancestors = p.given_ancestors();
  a.slots = p.own_slots ? Indices{p.slot_numbers.data(), p.slot_numbers.wide()} : Indices{};
  a.seeds = p.seeds.data();
  a.states = p.states;
  a.particles = p.particles;
  a.groups = p.groups;
  a.branch = p.branch;
  a.size = p.size;
  a.step = bytes.in(0, (1 << 28) - 1);

  const std::vector<Output> blank{Output(p.particles * p.branch * p.size * 4)};
  const Result result =
      agreed(blank, false, [&](const Kernels& kernels, int threads, std::vector<Output>& out) {
        GaussianArgs args = a;
        args.children = out[0].as<float>();
        args.threads = threads;
        const Status status = kernels.gaussian_step(args);
        FG_REQUIRE(status.code == Code::ok || out == blank); // nothing is written where an index is wrong
        return status;
      });
  for (std::int64_t i = 0; result.status.code == Code::ok && i < p.particles * p.branch * p.size; ++i) {
    const std::int64_t particle = i / (p.branch * p.size), group = particle / (p.particles / p.groups);
    const std::int64_t state = p.state_of(particle), d = i % p.size;
    float mean = p.x[static_cast<std::size_t>(state * p.x_stride + d)] * a.coefficients.of_x(group) +
                 to_float(p.prediction.data(), p.prediction.type(), state * p.prediction_stride + d) *
                     a.coefficients.of_prediction(group);
    if (shifted)
      mean = mean + to_float(p.shift.data(), p.shift.type(), state * p.shift_stride + d) *
                        a.coefficients.of_shift(group);
    const float child = result.outputs[0].as<float>()[i];
    // 53 bits of uniform give no normal beyond 8.6.
    FG_REQUIRE(std::fabs(child - mean) <= 8.7f * a.coefficients.sigma(group) + 1e-5f);
    FG_REQUIRE(a.coefficients.sigma(group) > 0 || child == mean);
  }
  result.fold_into(digest);
}

void try_log_ratio(Bytes& bytes, Digest& digest) {
  Problem p(bytes);
  for (float& c : p.coefficients)
    c = std::fabs(c) + 0.1f;
  const std::vector<float> children = reals(bytes, p.particles * p.branch * p.size);
  GaussianLogRatioArgs a{};
  a.children = children.data();
  a.x = p.row_x();
  a.prediction = p.row_prediction();
  a.shift = p.row_shift();
  a.coefficients = p.given();
  a.ancestors = p.given_ancestors();
  a.states = p.states;
  a.particles = p.particles;
  a.groups = p.groups;
  a.branch = p.branch;
  a.size = p.size;

  const std::vector<Output> blank{Output(p.particles * p.branch * 8)};
  const Result result =
      agreed(blank, false, [&](const Kernels& kernels, int threads, std::vector<Output>& out) {
        GaussianLogRatioArgs args = a;
        args.ratios = out[0].as<double>();
        args.threads = threads;
        return kernels.gaussian_log_ratio(args);
      });
  for (std::int64_t c = 0; result.status.code == Code::ok && c < p.particles * p.branch; ++c)
    FG_REQUIRE(std::isfinite(result.outputs[0].as<double>()[c]));
  result.fold_into(digest);
}

const Registered step("gaussian_step", try_step);
const Registered log_ratio("gaussian_log_ratio", try_log_ratio);

} // namespace
} // namespace fg::trial
