"""Weights as integers, the mirror of ``csrc/core/exp.h``: the same IEEE operations, hence the same bits."""

from __future__ import annotations

import torch
from torch import Tensor

LOG2E = float.fromhex("0x1.71547652b82fep+0")
MAX_LOG_WEIGHT = 1e9
"""Log-weights below minus this are weights of zero; finite ones above it are refused."""
WEIGHT_BITS = 50

_FLOAT = [
    "0x1.3f906cp-13", "0x1.5f0a66p-10", "0x1.3b30b0p-7", "0x1.c6af78p-5", "0x1.ebfbd8p-3", "0x1.62e430p-1", "0x1p0",
]  # fmt: skip
_DOUBLE = [
    "0x1.e9471c875b804p-32", "0x1.e61c1058a1947p-28", "0x1.b5253f6036401p-24", "0x1.62bfc71ea7788p-20",
    "0x1.ffcbfc595bcf6p-17", "0x1.4309130f139cbp-13", "0x1.5d87fe78a111cp-10", "0x1.3b2ab6fb9ffb3p-7",
    "0x1.c6b08d704a122p-5", "0x1.ebfbdff82c5a5p-3", "0x1.62e42fefa39efp-1", "0x1p0",
]  # fmt: skip


def exp2_fraction_less_one(f: Tensor) -> Tensor:
    """Return ``2^f - 1`` for float32 ``f`` in [-1/2, 1/2]."""
    p = torch.full_like(f, float.fromhex(_FLOAT[0]))
    for c in _FLOAT[1:-1]:
        p = p * f + float.fromhex(c)
    return p * f


def block_exponent(maximum: Tensor) -> Tensor:
    """Return the int64 exponent of blocks with largest log-weights ``maximum`` (finite)."""
    return torch.ceil(maximum.double() * LOG2E).to(torch.int64) + 1


def scaled_weight(x: Tensor, e: Tensor) -> Tensor:
    """Return ``floor(exp(x) * 2^(50 - e))`` as int64.

    Args:
        x: float32 or float64 log-weights, none above the maximum that gave ``e``, no NaN; ``-inf`` and values below -1e9
            give zero.
        e: int64 block exponents, broadcast against ``x``.
    """
    alive = x >= -MAX_LOG_WEIGHT
    t = torch.where(alive, x, 0).double() * LOG2E
    k = torch.round(t)
    f = (t - k).to(x.dtype)
    coefficients = [float.fromhex(c) for c in (_FLOAT if x.dtype == torch.float32 else _DOUBLE)]
    p = torch.full_like(f, coefficients[0])
    for c in coefficients[1:]:
        p = p * f + c
    drop = e - k.to(torch.int64)
    if x.dtype == torch.float32:
        mantissa = (p * 2.0**24).to(torch.int64) << 26
    else:
        mantissa = (p * 2.0**53).to(torch.int64)
        drop = drop + 3
    return torch.where(alive & (drop < 63), mantissa >> drop.clamp(0, 62), 0)
