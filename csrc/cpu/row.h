// Selection in one row: its weights first, then its draws, by one thread or by a team.
#pragma once

#include <cstdint>

#include "core/selection.h"
#include "cpu/interrupt.h"
#include "cpu/select.h"

namespace fg::FG_LEVEL {

// Threads that share a row; a team of one never synchronises. Where other processes want the processor a
// barrier can cost a time slice, so what is cheap each thread works out for itself.
struct Team {
  int id = 0;
  int size = 1;
  Interrupt* interrupt = nullptr;

  std::int64_t first(std::int64_t n) const { return n * id / size; }
  std::int64_t last(std::int64_t n) const { return n * (id + 1) / size; }
  void sync() const {
    if (size > 1) {
#pragma omp barrier
    }
  }
};

struct Row {
  const void* log_weights;
  bool is_double;
  std::int64_t items, draws;
  Rule rule;
  bool slots;
  std::uint64_t seed;
  std::int64_t parent, step;
  std::int32_t* ancestors;
  std::int64_t limit; // a team of one may scribble over ancestors[draws .. limit) when it fills the row
};

// What a row's weights come to; every thread of a team has its own, all the same.
struct Weighed {
  Fold fold;
  std::int64_t invalid = -1; // index of the first refused log-weight, or -1
  std::int64_t largest = 0;  // index of the first largest log-weight
  double log_mean_weight = 0.0, ess = 0.0;

  bool valid() const { return invalid < 0; }
  bool degenerate() const { return fold.total == 0; }
};

// Bytes that a row needs, shared by a team of this size.
std::int64_t workspace_bytes(std::int64_t items, std::int64_t draws, Rule rule, bool slots, int team);

// What makes log-weights [first, last) of a row, if they are not there yet: called just before they are
// weighed, so that they are read from the cache.
struct Update {
  void (*run)(const void* context, std::int64_t first, std::int64_t last) = nullptr;
  const void* context = nullptr;
};

Weighed weigh_row(const Team& team, const Row& row, void* workspace, const Update& update = {});

// Writes the ancestors of a row just weighed, valid and not degenerate. False where the rule found fewer
// distinct items of nonzero weight than it draws; the draws then repeat them.
bool draw_row(const Team& team, const Row& row, const Weighed& weighed, void* workspace);

// Ancestor i mod items in slot i.
void identity_row(const Team& team, const Row& row);

} // namespace fg::FG_LEVEL
