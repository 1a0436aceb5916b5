#include "cpu/crew.h"
#include "cpu/row.h"
#include "cpu/select.h"
#include "cpu/value_rows.h"

namespace fg::FG_LEVEL {
namespace {

// The particles of a group that a thread of a team takes: whole blocks, as in weighing.
struct Range {
  std::int64_t first, last;

  Range(std::int64_t from, std::int64_t to) : first(from), last(to) {}
  Range(const Team& team, std::int64_t items) {
    const std::int64_t blocks = (items + kBlock - 1) / kBlock;
    first = team.first(blocks) * kBlock;
    last = team.last(blocks) == blocks ? items : team.last(blocks) * kBlock;
  }
};

// One group's arrays, past the first `offset` particles.
template <typename Real> struct Particles {
  const Real* log_weights;
  Real* values;
  const Real *previous_values, *log_ratio;
  Real *new_log_weights, *new_values;

  Particles(const ReweightSelectArgs& a, std::int64_t offset)
      : log_weights(static_cast<const Real*>(a.log_weights) + offset),
        values(static_cast<Real*>(a.values) + offset),
        previous_values(static_cast<const Real*>(a.previous_values) + offset),
        log_ratio(a.log_ratio == nullptr ? nullptr : static_cast<const Real*>(a.log_ratio) + offset),
        new_log_weights(static_cast<Real*>(a.new_log_weights) + offset),
        new_values(static_cast<Real*>(a.new_values) + offset) {}
};

// Rounds after every operation; a particle that is dead stays so, though (-inf) - (-inf) is not a number.
// Returns the first particle that is refused, or -1.
template <typename Real, bool ratio>
std::int64_t reweight(const Particles<Real>& p, const Range& range, Real beta, Real previous_beta) {
  constexpr Real inf = static_cast<Real>(INFINITY), most = static_cast<Real>(kMaxLogWeight);
  const auto refused = [&](std::int64_t i) -> int {
    return !(p.new_log_weights[i] <= most) | !(p.log_weights[i] < inf) | !(p.values[i] < inf) |
           !(p.previous_values[i] < inf) | (ratio ? !(p.log_ratio[i] < inf) : 0);
  };
  int any = 0;
#pragma omp simd reduction(| : any)
  for (std::int64_t i = range.first; i < range.last; ++i) {
    Real update = beta * p.values[i] - previous_beta * p.previous_values[i];
    int dead = (p.log_weights[i] == -inf) | (p.values[i] == -inf);
    if constexpr (ratio) {
      update = update + p.log_ratio[i];
      dead |= p.log_ratio[i] == -inf;
    }
    p.new_log_weights[i] = dead ? -inf : p.log_weights[i] + update;
    any |= refused(i);
  }
  if (!any)
    return -1;
  std::int64_t i = range.first;
  while (!refused(i))
    ++i;
  return i;
}

template <typename Real>
std::int64_t reweight(const ReweightSelectArgs& a, const Particles<Real>& p, const Range& range,
                      std::int64_t g) {
  const Real beta = static_cast<Real>(a.betas != nullptr ? a.betas[g] : a.beta);
  const Real previous =
      static_cast<Real>(a.previous_betas != nullptr ? a.previous_betas[g] : a.previous_beta);
  return a.log_ratio != nullptr ? reweight<Real, true>(p, range, beta, previous)
                                : reweight<Real, false>(p, range, beta, previous);
}

// Evaluates states a tile at a time, each particle being weighed while its tile is at hand. A value that
// cannot be computed is a NaN, and so are the log-weights from the first particle that is refused on.
template <typename Real>
void evaluate_and_reweight(const ReweightSelectArgs& a, const Particles<Real>& p, const Range& range,
                           std::int64_t g) {
  alignas(64) char stack[kStack];
  const Memory memory(stack, value_bytes(*a.value));
  float tile[kValueRows];
  for (std::int64_t i = range.first; i < range.last; i += kValueRows) {
    const Range part(i, i + kValueRows < range.last ? i + kValueRows : range.last);
    std::int64_t valid = 0;
    if (memory.data != nullptr) {
      const std::int64_t first = g * a.items + i, count = part.last - i;
      const Status status = value_rows(*a.value, first, count, tile, memory.data);
      valid = status.code == Code::ok             ? count
              : status.code == Code::out_of_range ? status.index / a.value->columns - first
                                                  : status.index - first;
    }
    for (std::int64_t k = i; k < part.last; ++k)
      p.values[k] = k - i < valid ? static_cast<Real>(tile[k - i]) : static_cast<Real>(NAN);
    const std::int64_t bad = reweight(a, p, part, g);
    if (bad >= 0) {
      for (std::int64_t k = bad; k < range.last; ++k)
        p.new_log_weights[k] = static_cast<Real>(NAN);
      return;
    }
  }
}

template <typename T>
void gather(const void* from, void* to, std::int64_t offset, const std::int32_t* ancestors,
            const Range& range) {
  const T* source = static_cast<const T*>(from) + offset;
  T* target = static_cast<T*>(to) + offset;
  for (std::int64_t i = range.first; i < range.last; ++i)
    target[i] = source[ancestors[i]];
}

inline void gather(const void* from, void* to, int bytes, std::int64_t offset, const std::int32_t* ancestors,
                   const Range& range) {
  if (bytes == 8)
    gather<std::int64_t>(from, to, offset, ancestors, range);
  else
    gather<std::int32_t>(from, to, offset, ancestors, range);
}

template <typename Real>
Status reweight_select_group(const ReweightSelectArgs& a, const Team& team, std::int64_t g,
                             std::int64_t limit, void* workspace) {
  const std::int64_t offset = g * a.items;
  const Particles<Real> particles(a, offset);
  const Range range(team, a.items);
  // Weighing stops at a NaN and finds it again, in the lowest place of all threads.
  if (a.value != nullptr) { // a value may cost much: a share finer than whole blocks
    evaluate_and_reweight(a, particles, Range(team.first(a.items), team.last(a.items)), g);
    team.sync();
  } else if (const std::int64_t bad = reweight(a, particles, range, g); bad >= 0) {
    particles.new_log_weights[bad] = static_cast<Real>(NAN);
  }
  const Row row{particles.new_log_weights,
                sizeof(Real) == 8,
                a.items,
                a.items,
                a.rule,
                true,
                seed_of(a.seeds, g),
                0,
                a.step,
                a.ancestors + offset,
                limit};
  const Weighed weighed = weigh_row(team, row, workspace);
  if (!weighed.valid())
    return {Code::invalid_value, offset + weighed.invalid};
  const bool resample = !weighed.degenerate() && weighed.ess < a.ess_threshold * static_cast<double>(a.items);
  if (team.id == 0) {
    a.ess[g] = weighed.ess;
    a.resampled[g] = resample;
    a.log_z_increment[g] = resample || weighed.degenerate() ? weighed.log_mean_weight : 0.0;
  }
  if (resample) {
    draw_row(team, row, weighed, workspace);
    team.sync();
    for (std::int64_t i = range.first; i < range.last; ++i)
      particles.new_log_weights[i] = 0;
  } else {
    for (std::int64_t i = range.first; i < range.last; ++i)
      row.ancestors[i] = static_cast<std::int32_t>(i);
  }
  gather(a.values, a.new_values, sizeof(Real), offset, row.ancestors, range);
  if (a.running != nullptr)
    gather(a.running, a.new_running, a.running_bytes, offset, row.ancestors, range);
  return weighed.degenerate() ? Status{Code::degenerate, g} : Status{};
}

} // namespace

Status reweight_select(const ReweightSelectArgs& a) {
  const auto visit = [&a](const Team& team, std::int64_t g, std::int64_t limit, void* workspace) {
    return a.is_double ? reweight_select_group<double>(a, team, g, limit, workspace)
                       : reweight_select_group<float>(a, team, g, limit, workspace);
  };
  const auto visit_none = [](std::int64_t, std::int64_t) -> std::int64_t { return 0; };
  const std::int64_t more = a.value != nullptr ? a.items * value_work(*a.value) : 0;
  return each_row(a.groups, a.items, a.items, a.rule, true, a.threads, visit, visit_none, more);
}

} // namespace fg::FG_LEVEL
