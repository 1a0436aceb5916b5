"""Standard normals by Box and Muller, the mirror of ``csrc/core/normal.h``: the same IEEE operations, hence the same bits."""

from __future__ import annotations

import triton
import triton.language as tl

from fastguide.reference import normal as _reference

RADIUS_BITS = tl.constexpr(_reference.RADIUS_BITS)
_SQRT_HALF_BITS = tl.constexpr(_reference._SQRT_HALF_BITS)
_TWO_LN2 = tl.constexpr(_reference._TWO_LN2)
_LOG = tl.constexpr(tuple(map(float.fromhex, _reference._LOG)))
_SINE = tl.constexpr(tuple(map(float.fromhex, _reference._SINE)))
_COSINE = tl.constexpr(tuple(map(float.fromhex, _reference._COSINE)))


@triton.jit
def _polynomial(coefficients: tl.constexpr, count: tl.constexpr, x):
    p = x * coefficients[0] + coefficients[1]
    for i in tl.static_range(2, count):
        p = p * x + coefficients[i]
    return p


@triton.jit
def normal_pair(a, b):
    """Return the two float32 normals that two uint32 words make."""
    n = (a >> 1).to(tl.float32) * 256.0 + ((b & 0xFF).to(tl.float32) + 0.5)
    bits = n.to(tl.int32, bitcast=True)
    k = (bits - _SQRT_HALF_BITS) >> 23
    f = (bits - (k << 23)).to(tl.float32, bitcast=True) - 1.0
    squared = (-(k - RADIUS_BITS)).to(tl.float32) * _TWO_LN2 + _polynomial(_LOG, 9, f) * f
    r = tl.sqrt_rn(squared)
    w = (((b >> 8) & 0x3FFFFF).to(tl.float32) + 0.5) * 0.0000002384185791015625 - 0.5
    square = w * w
    sine = _polynomial(_SINE, 4, square) * w
    cosine = _polynomial(_COSINE, 4, square)
    cosine = tl.where((b >> 31) == 1, -cosine, cosine)
    swapped = ((b >> 30) & 1) == 1
    return r * tl.where(swapped, sine, cosine), r * tl.where(swapped, cosine, sine)
