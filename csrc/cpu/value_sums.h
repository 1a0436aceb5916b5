// Sums over the columns of a float state, in double: eight partial sums, of the columns d mod 8, then
// ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7)). Two to eight of them share a register; what is left of a row
// after whole eights is added one by one. The states are read once, as they lie.
#pragma once

#include <cstdint>

#include "cpu/lanes.h"
#include "cpu/value_rows.h"

namespace fg::FG_LEVEL {
namespace {

constexpr int kPartials = 8;

// Calls write(row, sum) with the sum over d of term(x, d), for x a double or a register of them from column d
// on.
template <typename Term, typename Write>
FG_HD void sum_columns(const float* states, std::int64_t count, std::int64_t columns, Term term,
                       Write write) {
  constexpr int kRegisters = kPartials / kWideLanes;
  const std::int64_t whole = columns / kPartials * kPartials;
  for (std::int64_t row = 0; row < count; ++row, states += columns) {
    Doubles sums[kRegisters] = {};
    for (std::int64_t d = 0; d < whole; d += kPartials)
      for (int r = 0; r < kRegisters; ++r) {
        const std::int64_t at = d + r * kWideLanes;
        sums[r] = sums[r] + term(to_doubles(load<HalfFloats>(states + at)), at);
      }
    alignas(64) double s[kPartials];
    for (int r = 0; r < kRegisters; ++r)
      store(s + r * kWideLanes, sums[r]);
    for (std::int64_t d = whole; d < columns; ++d)
      s[d - whole] += term(static_cast<double>(states[d]), d);
    write(row, ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7])));
  }
}

// The values from column d on, as a double or as a register of them.
FG_HD double from(const double* values, std::int64_t d, double) {
  return values[d];
}
FG_HD Doubles from(const double* values, std::int64_t d, Doubles) {
  return load<Doubles>(values + d);
}

inline void to_double(const float* values, std::int64_t n, double* doubles) {
  for (std::int64_t i = 0; i < n; ++i)
    doubles[i] = static_cast<double>(values[i]);
}

} // namespace
} // namespace fg::FG_LEVEL
