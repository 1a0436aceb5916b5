#include "cpu/select.h"

#include "cpu/crew.h"
#include "cpu/row.h"

namespace fg::FG_LEVEL {

Status select(const SelectArgs& a) {
  const std::int64_t element = a.is_double ? 8 : 4;
  const auto visit = [&a, element](const Team& team, std::int64_t r, std::int64_t limit, void* workspace) -> Status {
    const Row row{static_cast<const char*>(a.log_weights) + r * a.items * element,
                  a.is_double,
                  a.items,
                  a.draws,
                  a.rule,
                  a.slots,
                  seed_of(a.seeds, r / a.parents),
                  r % a.parents,
                  a.step,
                  a.ancestors + r * a.draws,
                  limit};
    weigh_row(team, row, workspace);
    const Shared& shared = shared_of(workspace);
    if (shared.invalid >= 0)
      return {Code::invalid_value, r * a.items + shared.invalid};
    if (team.id == 0) {
      a.log_mean_weight[r] = shared.log_mean_weight;
      a.ess[r] = shared.ess;
    }
    if (shared.degenerate)
      identity_row(team, row);
    else
      draw_row(team, row, workspace);
    return shared.degenerate ? Status{Code::degenerate, r} : Status{};
  };
  return each_row(a.groups * a.parents, a.items, a.draws, a.rule, a.slots, a.threads, visit);
}

} // namespace fg::FG_LEVEL
