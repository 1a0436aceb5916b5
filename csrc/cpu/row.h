// Selection in one row: its weights first, then its draws, by one thread or by a team.
#pragma once

#include <cstdint>

#include "core/selection.h"
#include "cpu/select.h"
#include "cpu/status.h"

namespace fg::FG_LEVEL {

// Threads that share a row; a team of one never synchronises.
struct Team {
  int id = 0;
  int size = 1;

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

struct Block {
  BlockWeight weight;
  double max;
  std::int64_t invalid;    // index within the block of the first refused log-weight, or -1
  std::int64_t base;       // point before the block
  std::int64_t copies;     // residual: certain copies in the block, then before it
  std::int64_t remainder;  // residual: remainders in the block, then before it
  std::int64_t first_slot; // slots before the block
  std::int64_t dead, surplus;
};

// What the threads of a team share about a row. Memory past the struct is laid out by `workspace_bytes`.
struct Shared {
  Fold fold;
  std::int64_t invalid; // index of the first refused log-weight, or -1
  std::int64_t largest; // index of the first largest log-weight
  bool degenerate;      // too few items of nonzero weight
  double log_mean_weight, ess;
  std::int64_t q, rho, offset;         // share of a slot, what the largest weight is given, systematic offset
  std::int64_t independent, remainder; // independent draws and their total
};

std::int64_t workspace_bytes(std::int64_t items, std::int64_t draws, Rule rule, bool slots, int team);

// Fills Shared for the row; every thread of the team calls it and may read `workspace` afterwards.
void weigh_row(const Team& team, const Row& row, void* workspace);

// Writes the ancestors of a row that has been weighed and is valid.
void draw_row(const Team& team, const Row& row, void* workspace);

// Ancestor i mod items in slot i.
void identity_row(const Team& team, const Row& row);

inline const Shared& shared_of(const void* workspace) {
  return *static_cast<const Shared*>(workspace);
}

} // namespace fg::FG_LEVEL
