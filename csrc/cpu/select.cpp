#include "cpu/select.h"

#include "cpu/crew.h"
#include "cpu/row.h"
#include "cpu/single.h"

namespace fg::FG_LEVEL {

Status select(const SelectArgs& a) {
  const std::int64_t element = a.is_double ? 8 : 4;
  const auto visit = [&a, element](const Team& team, std::int64_t r, std::int64_t limit,
                                   void* workspace) -> Status {
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
    const Weighed weighed = weigh_row(team, row, workspace);
    if (!weighed.valid())
      return {Code::invalid_value, r * a.items + weighed.invalid};
    if (team.id == 0) {
      a.log_mean_weight[r] = weighed.log_mean_weight;
      a.ess[r] = weighed.ess;
    }
    bool enough = !weighed.degenerate();
    if (enough)
      enough = draw_row(team, row, weighed, workspace);
    else
      identity_row(team, row);
    return enough ? Status{} : Status{Code::degenerate, r};
  };
  const bool single = draws_single(a);
  const auto visit_some = [&a, single](std::int64_t r, std::int64_t last) -> std::int64_t {
    if (!single || last - r < kWideLanes)
      return 0;
    return (a.is_double ? draw_single<double>(a, r) : draw_single<float>(a, r)) ? kWideLanes : 0;
  };
  return each_row(a.groups * a.parents, a.items, a.draws, a.rule, a.slots, a.threads, visit, visit_some);
}

} // namespace fg::FG_LEVEL
