// masked_step and masked_mode: tokens at masked positions, from logits that are read only where needed.
#pragma once

#include <cstdint>

#include "cpu/status.h"

namespace fg {

enum class LogitType : int { float32 = 0, float16, bfloat16 };

// A tensor of indices, 32 or 64 bits wide; a null address stands for a default that the op's text states.
struct Indices {
  const void* data = nullptr;
  bool wide = true;

  std::int64_t operator[](std::int64_t i) const {
    return wide ? static_cast<const std::int64_t*>(data)[i] : static_cast<const std::int32_t*>(data)[i];
  }
};

struct MaskedArgs {
  const void* tokens; // [states, length]; the value `vocab` is the mask
  bool wide_tokens;   // int64, else int32
  void* children;     // [particles, branch, length], of the type of tokens

  const void* logits;                       // [states, length, vocab]
  LogitType logit_type;                     // last axis contiguous,
  std::int64_t state_stride, logits_stride; // elements from one state, one position, to the next
  const float* bias;                        // [vocab] or [length, vocab], or null
  std::int64_t bias_stride;                 // 0 or vocab

  Indices ancestors;           // [particles], in [0, states); default: the identity
  Indices slots;               // [particles], a particle's number in its group; default: its place
  const std::int64_t* seeds;   // [groups]
  const std::int64_t* lengths; // [groups]: positions from here on are padding; or null

  std::int64_t states, particles, groups, branch, length, vocab;
  std::uint64_t threshold;   // reveal_threshold(probability)
  float inverse_temperature; // 0: the lowest index of the largest logit
  std::int64_t step;
  std::uint32_t stream; // of the token words
  int threads;
};

// Codes: out_of_range: index below `particles`, an ancestor; then below 2 * particles, a slot; then a token
// at index - 2 * particles in [states, length]. invalid_value (NaN, +inf or above 1e9) and degenerate (every
// token forbidden): the flat index, in children, of the first draw that met such a row.
#define FG_MASKED_KERNELS(X) X(masked_step, MaskedArgs) X(masked_mode, MaskedArgs)

} // namespace fg
