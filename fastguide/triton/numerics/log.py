"""The natural logarithm in double precision, the mirror of ``csrc/core/log.h``: the same IEEE operations."""

from __future__ import annotations

import triton
import triton.language as tl

from fastguide.reference import log as _reference

LN2 = tl.constexpr(_reference.LN2)
_SQRT_HALF_BITS = tl.constexpr(_reference._SQRT_HALF_BITS)
_ARTANH = tl.constexpr(tuple(1.0 / odd for odd in range(23, 0, -2)))


@triton.jit
def binary_exponent(x):
    """Return int64 ``k`` with ``x = m * 2^k``, ``m`` in [sqrt(1/2), sqrt(2)); float64 ``x`` positive and normal."""
    return (x.to(tl.int64, bitcast=True) - _SQRT_HALF_BITS) >> 52


@triton.jit
def binary_mantissa(x, k):
    """Return ``m`` of the same splitting."""
    return (x.to(tl.int64, bitcast=True) - (k << 52)).to(tl.float64, bitcast=True)


@triton.jit
def log_mantissa(m):
    """Return ``log(m)`` for float64 ``m`` in [sqrt(1/2), sqrt(2)], as ``2 artanh((m - 1) / (m + 1))``."""
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = z * _ARTANH[0] + _ARTANH[1]
    for i in tl.static_range(2, 12):
        p = p * z + _ARTANH[i]
    return (s + s) * p


@triton.jit
def log_fixed(x):
    """Return ``log(x)`` for positive normal float64 ``x``, within about 2 units in the last place."""
    k = binary_exponent(x)
    return k.to(tl.float64) * LN2 + log_mantissa(binary_mantissa(x, k))
