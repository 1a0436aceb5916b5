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
  const float* shift;                       // [states, length, vocab], or null
  std::int64_t shift_state_stride, shift_stride;

  Indices ancestors;           // [particles], in [0, states); default: the identity
  Indices slots;               // [particles], a particle's number in its group; default: its place
  const std::int64_t* seeds;   // [groups]
  const std::int64_t* lengths; // [groups]: positions from here on are padding; or null

  std::int64_t states, particles, groups, branch, length, vocab;

  std::uint64_t reveal_threshold; // position_threshold(probability), where counts do not decide
  const std::int64_t* counts;     // [groups]: how many to reveal; or null, then
  std::int64_t count;             // that of all groups; -1: the threshold decides
  bool confidence;                // reveal the likeliest, not random ones
  std::uint64_t remask_threshold; // position_threshold(probability)
  const unsigned char* frozen;    // bool [length] or [states, length]: never remasked; or null
  std::int64_t frozen_stride;     // 0 or length

  float inverse_temperature; // 0: the lowest index of the largest logit
  std::int64_t top_k;        // tokens to keep; 0: all
  std::uint64_t top_p;       // share_word(p); 0: all
  std::int64_t step;
  std::uint32_t stream; // of the token words
  int threads;
};

// Codes: out_of_range: index below `particles`, an ancestor; then below 2 * particles, a slot; then a token
// at index - 2 * particles in [states, length]. invalid_value (NaN, +inf or above 1e9) and degenerate (every
// token forbidden): the flat index, in children, of the first draw that met such a row; before any of those,
// of the first child 0 that could not rank such a row.
#define FG_MASKED_KERNELS(X) X(masked_step, MaskedArgs) X(masked_mode, MaskedArgs)

} // namespace fg
