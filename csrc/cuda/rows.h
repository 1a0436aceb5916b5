// Rows of log-weights, their draws, and what moves with them: the kernels behind select and reweight_select.
//
// A row longer than one block of the contract takes two launches: the blocks are weighed; then every block of
// threads folds all their sums, of which there are few, and does its own block of items again from the point
// where it begins. A systematic boundary needs the total, so nothing is gained by looking back, and nobody
// waits. Survivors that stay in their slots take a third launch, which needs to know how many there are
// before. Beyond kFew blocks sums are folded once, in a launch between.
#pragma once

#include "cuda/moving.h"
#include "cuda/select.h"

namespace fg::cuda {

constexpr std::int64_t kFew = 1024; // blocks whose points fit shared memory: 2^22 items
extern std::int64_t few;            // blocks of a row that `draw` folds itself, at most kFew; tests set less

// What moves with the particles of a row that resamples.
struct Movement {
  const void* source; // [rows, items] of `bytes`, or null
  void* target;
  int bytes; // 4 or 8
};

struct Job {
  SelectArgs select;     // `log_weights` are those to weigh
  double ess_threshold;  // a row resamples where its effective sample size is below this share of the items
  const bool* resampled; // [rows], or null: every row that can be drawn from is
  ReweightSelectArgs reweight; // of which `groups` is 0 where log-weights are given as they are
  Movement values, running;
  Moving states[kMostStates]; // that the last launch moves in place, a tile of slots by a block
  int state_count;
};

std::int64_t rows_bytes(std::int64_t rows, std::int64_t items, std::int64_t draws, bool slots);
void run_rows(const Job& job, StreamHandle stream);

} // namespace fg::cuda
