"""The natural logarithm in double precision, the mirror of ``csrc/core/log.h``: the same IEEE operations."""

from __future__ import annotations

import torch
from torch import Tensor

LN2 = float.fromhex("0x1.62e42fefa39efp-1")
_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD


def power_of_two(n: Tensor) -> Tensor:
    """Return ``2^n`` as float64 for int64 ``n`` in [-1022, 1023], exactly."""
    return ((n + 1023) << 52).view(torch.float64)


def split(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return int64 ``k`` and float64 ``m`` in [sqrt(1/2), sqrt(2)) with ``x = m * 2^k``; ``x`` positive and normal."""
    bits = x.view(torch.int64)
    k = (bits - _SQRT_HALF_BITS) >> 52
    return k, (bits - (k << 52)).view(torch.float64)


def log_mantissa(m: Tensor) -> Tensor:
    """Return ``log(m)`` for float64 ``m`` in [sqrt(1/2), sqrt(2)], as ``2 artanh((m - 1) / (m + 1))``."""
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = torch.full_like(z, 1.0 / 23.0)
    for odd in range(21, 0, -2):
        p = p * z + 1.0 / odd
    return (s + s) * p


def log(x: Tensor) -> Tensor:
    """Return ``log(x)`` for positive normal float64 ``x``, within about 2 units in the last place."""
    k, m = split(x)
    return k.double() * LN2 + log_mantissa(m)
