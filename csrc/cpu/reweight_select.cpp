#include "core/reweight.h"
#include "cpu/crew.h"
#include "cpu/lanes.h"
#include "cpu/row.h"
#include "cpu/select.h"
#include "cpu/value_rows.h"

namespace fg::FG_LEVEL {
namespace {

// The particles of a group that a thread of a team takes: whole blocks, as in weighing.
struct Range {
  std::int64_t first, last;

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

template <typename Real> struct Reweighting {
  Particles<Real> particles;
  Real beta, previous_beta;
};

template <typename Real> struct Register;
template <> struct Register<float> {
  using Vector = Floats;
  using Mask = Ints;
};
template <> struct Register<double> {
  using Vector = Doubles;
  using Mask = Longs;
};

// Of the particles from i on, as many as a `Value` holds.
template <typename Value, typename Flags, bool ratio, typename Real>
FG_HD Updated<Value, Flags> update_of(const Particles<Real>& p, std::int64_t i, Real beta,
                                      Real previous_beta) {
  Value log_ratio{};
  if constexpr (ratio)
    log_ratio = load<Value>(p.log_ratio + i);
  return update_log_weights<Value, Flags, ratio>(load<Value>(p.log_weights + i), load<Value>(p.values + i),
                                                 load<Value>(p.previous_values + i), log_ratio, beta,
                                                 previous_beta);
}

// Updates the log-weights of particles [first, last), by registers: of a plain loop the compiler makes scalar
// code, which took three times as long as the weighing. The first particle that is refused becomes NaN:
// weighing stops at it, in the lowest place of all threads.
template <typename Real, bool ratio>
void reweight(const void* context, std::int64_t first, std::int64_t last) {
  using Vector = typename Register<Real>::Vector;
  using Mask = typename Register<Real>::Mask;
  constexpr std::int64_t kWidth = sizeof(Vector) / sizeof(Real);
  const Reweighting<Real>& r = *static_cast<const Reweighting<Real>*>(context);
  const Particles<Real> p = r.particles;
  const Real beta = r.beta, previous_beta = r.previous_beta;
  const auto one = [&](std::int64_t k) { return update_of<Real, int, ratio>(p, k, beta, previous_beta); };
  Mask accepted = ~Mask{};
  std::int64_t i = first;
  for (; i + kWidth <= last; i += kWidth) {
    const auto updated = update_of<Vector, Mask, ratio>(p, i, beta, previous_beta);
    store(p.new_log_weights + i, updated.log_weights);
    accepted &= updated.accepted;
  }
  bool all = true;
  for (std::int64_t k = 0; k < kWidth; ++k)
    all &= accepted[k] != 0;
  for (; i < last; ++i) {
    const auto updated = one(i);
    p.new_log_weights[i] = updated.log_weights;
    all &= updated.accepted != 0;
  }
  for (i = first; !all && i < last; ++i) {
    if (!one(i).accepted) {
      p.new_log_weights[i] = static_cast<Real>(NAN);
      break;
    }
  }
}

// Evaluates the states of particles [first, last) a tile at a time, each particle being weighed while its
// tile is at hand. Values that cannot be computed are NaN, and so is everything from the first of them on.
template <typename Real>
void evaluate_and_update(const ReweightSelectArgs& a, const Particles<Real>& p, const Update& update,
                         const Team& team, std::int64_t offset) {
  const std::int64_t first = team.first(a.items), last = team.last(a.items); // finer than whole blocks
  alignas(64) char stack[kStack];
  const Memory memory(stack, value_bytes(*a.value));
  float tile[kValueRows];
  for (std::int64_t i = first; i < last; i += kValueRows) {
    const std::int64_t count = i + kValueRows < last ? kValueRows : last - i;
    std::int64_t valid = 0;
    if (memory.data != nullptr && !(team.interrupt != nullptr && team.interrupt->requested())) {
      const Status status = value_rows(*a.value, offset + i, count, tile, memory.data);
      valid = status.code == Code::ok             ? count
              : status.code == Code::out_of_range ? status.index / a.value->columns - offset - i
                                                  : status.index - offset - i;
    }
    for (std::int64_t k = 0; k < count; ++k)
      p.values[i + k] = k < valid ? static_cast<Real>(tile[k]) : static_cast<Real>(NAN);
    update.run(update.context, i, i + count);
    for (std::int64_t k = i + valid; valid < count && k < last; ++k)
      p.new_log_weights[k] = static_cast<Real>(NAN);
    if (valid < count)
      return;
  }
}

// Moves the range by its ancestors, or copies it where they are null.
template <typename T>
void gather(const void* from, void* to, std::int64_t offset, const std::int32_t* ancestors,
            const Range& range) {
  const T* source = static_cast<const T*>(from) + offset;
  T* target = static_cast<T*>(to) + offset;
  if (ancestors == nullptr && range.first < range.last)
    __builtin_memcpy(target + range.first, source + range.first,
                     static_cast<std::size_t>(range.last - range.first) * sizeof(T));
  for (std::int64_t i = range.first; ancestors != nullptr && i < range.last; ++i)
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
  const Reweighting<Real> reweighting{
      Particles<Real>(a, offset), static_cast<Real>(a.betas != nullptr ? a.betas[g] : a.beta),
      static_cast<Real>(a.previous_betas != nullptr ? a.previous_betas[g] : a.previous_beta)};
  const Particles<Real>& particles = reweighting.particles;
  const Range range(team, a.items);
  Update update{a.log_ratio != nullptr ? reweight<Real, true> : reweight<Real, false>, &reweighting};
  if (a.value != nullptr) {
    evaluate_and_update(a, particles, update, team, offset);
    team.sync();
    update = {};
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
  const Weighed weighed = weigh_row(team, row, workspace, update);
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
  const std::int32_t* ancestors = resample ? row.ancestors : nullptr;
  gather(a.values, a.new_values, sizeof(Real), offset, ancestors, range);
  if (a.running != nullptr)
    gather(a.running, a.new_running, a.running_bytes, offset, ancestors, range);
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
