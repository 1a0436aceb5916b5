"""Activations of small networks, the mirror of ``csrc/core/activation.h``: the same IEEE operations, in float32."""

from __future__ import annotations

import triton
import triton.language as tl

from fastguide.reference import activation as _reference
from fastguide.triton.numerics.exp import exp2_fraction_less_one

NAMES = tuple(_reference.ACTIVATIONS)
RELU, TANH, SILU, GELU_TANH = (tl.constexpr(i) for i in range(len(NAMES)))
NONE = tl.constexpr(-1)
_ROUND = tl.constexpr(_reference._ROUND)
_EXPONENT = tl.constexpr(_reference._ROUND_BITS - 127)
_LOG2E = tl.constexpr(_reference._LOG2E)
_TWO_LOG2E = tl.constexpr(2 * _reference._LOG2E)
_GELU_LINEAR = tl.constexpr(_reference._GELU_LINEAR)
_GELU_CUBIC = tl.constexpr(_reference._GELU_CUBIC)


@triton.jit
def _split_power(t):
    """Return ``power`` and ``less_one`` with ``2^t = power * (1 + less_one)``, for ``t`` in [-126, 126]."""
    rounded = t + _ROUND
    power = ((rounded.to(tl.int32, bitcast=True) - _EXPONENT) << 23).to(tl.float32, bitcast=True)
    return power, exp2_fraction_less_one(t - (rounded - _ROUND))


@triton.jit
def _within(t, bound: tl.constexpr):
    t = tl.where(t < -bound, -bound, t)
    return tl.where(t > bound, bound, t)


@triton.jit
def _tanh(x):
    power, less_one = _split_power(_within(x * _TWO_LOG2E, 40.0))
    e = less_one * power + (power - 1.0)
    return tl.div_rn(e, e + 2.0)


@triton.jit
def activate(x, ACTIVATION: tl.constexpr):
    """Return an activation of float32 ``x`` by its number, or ``x``. NaN stays NaN."""
    if ACTIVATION == RELU:
        return tl.where(x < 0.0, 0.0, x)
    elif ACTIVATION == TANH:
        return _tanh(x)
    elif ACTIVATION == SILU:
        power, less_one = _split_power(_within(x * -_LOG2E, 126.0))
        return tl.div_rn(x, (less_one + 1.0) * power + 1.0)
    elif ACTIVATION == GELU_TANH:
        return x * 0.5 * (_tanh(x * (x * x * _GELU_CUBIC + _GELU_LINEAR)) + 1.0)
    else:
        return x
