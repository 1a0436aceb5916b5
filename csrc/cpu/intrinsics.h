// The intrinsics that a SIMD level may use.
#pragma once

#if defined(__x86_64__)
// gcc 12 warns of the deliberately undefined operand inside its own intrinsics.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif
