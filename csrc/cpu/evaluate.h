// evaluate: the values of states by a function that needs no interpreter; contracts in fastguide/ops,
// specification in fastguide/reference.
#pragma once

#include <cstdint>

#include "cpu/status.h"

namespace fg {

// What stands in `parameters` and `settings`:
enum class ValueKind : int {
  linear = 0,         // weight [columns], bias [1]
  diagonal_quadratic, // diagonal [columns], center [columns], offset [1]
  quadratic,          // matrix [columns, columns], center [columns], offset [1]
  mlp,                // weight [out, in] and bias [out] a layer; activation, columns, out of each layer
  position_weights,   // scores [window, vocab]; window, vocab
  motif_count,        // none; vocab, number of motifs, length of each, tokens of each
  potts,              // fields [columns, vocab], couplings [columns, columns, vocab, vocab]; vocab
  function,           // none; address
};

enum class StateType : int { float32 = 0, float64, uint8, int32, int64 };

// void(states [rows, columns], rows, columns, out [rows]), called by several threads at once on rows of their
// own.
using ValueFunction = void (*)(const void*, std::int64_t, std::int64_t, float*);

struct EvaluateArgs {
  ValueKind kind;
  const void* states; // [rows, columns]: float32 for linear to mlp, integers for position_weights to potts
  StateType type;
  std::int64_t rows, columns;
  const float* const* parameters;
  const std::int64_t* settings;
  float* out; // [rows]
  int threads;
};

// Codes: out_of_range: flat index in states of the first token outside 0 .. vocab - 1; invalid_value: the
// first row whose value a function leaves NaN.
#define FG_EVALUATE_KERNELS(X) X(evaluate, EvaluateArgs)

} // namespace fg
