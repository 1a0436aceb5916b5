"""Weights as integers, the mirror of ``csrc/core/exp.h``: the same IEEE operations, hence the same bits."""

from __future__ import annotations

import triton
import triton.language as tl

from fastguide.reference import exp as _reference

LOG2E = tl.constexpr(_reference.LOG2E)
MAX_LOG_WEIGHT = tl.constexpr(_reference.MAX_LOG_WEIGHT)
WEIGHT_BITS = tl.constexpr(_reference.WEIGHT_BITS)
_FLOAT = tl.constexpr(tuple(map(float.fromhex, _reference._FLOAT)))
_DOUBLE = tl.constexpr(tuple(map(float.fromhex, _reference._DOUBLE)))
_ROUND = tl.constexpr(1.5 * 2.0**52)
"""Added to a double below 2^51 and taken away again, it leaves the nearest integer, ties to even."""


@triton.jit
def exp2_fraction_less_one(f):
    """Return ``2^f - 1`` for float32 ``f`` in [-1/2, 1/2]."""
    p = f * _FLOAT[0] + _FLOAT[1]
    for i in tl.static_range(2, 6):
        p = p * f + _FLOAT[i]
    return p * f


@triton.jit
def _exp2_fraction_double(f):
    p = f * _DOUBLE[0] + _DOUBLE[1]
    for i in tl.static_range(2, 12):
        p = p * f + _DOUBLE[i]
    return p


@triton.jit
def block_exponent(maximum):
    """Return the int64 exponent of blocks with largest log-weights ``maximum`` (finite)."""
    t = maximum.to(tl.float64) * LOG2E
    nearest = t + _ROUND - _ROUND
    return nearest.to(tl.int64) + tl.where(nearest < t, 2, 1)


@triton.jit
def scaled_weight(x, e):
    """Return ``floor(exp(x) * 2^(50 - e))`` as int64.

    Args:
        x: float32 or float64 log-weights, none above the maximum that gave ``e``, no NaN; ``-inf`` and values below -1e9
            give zero.
        e: int64 block exponents, broadcast against ``x``.
    """
    alive = x >= -MAX_LOG_WEIGHT
    t = tl.where(alive, x, 0.0).to(tl.float64) * LOG2E
    rounded = t + _ROUND
    f = t - (rounded - _ROUND)
    k = rounded.to(tl.int64, bitcast=True).to(tl.int32)  # read off the low bits: a conversion of 64 bits is slow
    if x.dtype == tl.float32:
        mantissa = ((exp2_fraction_less_one(f.to(tl.float32)) + 1.0) * 16777216.0).to(tl.int32)
        drop = tl.where(alive, e.to(tl.int32) - k, -1).to(tl.uint32)
        high = mantissa.to(tl.int64) << (26 - tl.minimum(drop, 26)).to(tl.int64)
        return tl.where(drop <= 26, high, (mantissa >> tl.minimum(drop - 26, 31).to(tl.int32)).to(tl.int64))
    else:
        mantissa = (_exp2_fraction_double(f) * 9007199254740992.0).to(tl.int64)
        drop = e - k.to(tl.int64) + 3
        return tl.where(alive & (drop < 63), mantissa >> tl.minimum(tl.maximum(drop, 0), 62), 0)
