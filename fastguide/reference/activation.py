"""Activations of small networks, the mirror of ``csrc/core/activation.h``: the same IEEE operations, in float32."""

from __future__ import annotations

import torch
from torch import Tensor

from fastguide.reference.exp import exp2_fraction_less_one

_ROUND = 1.5 * 2.0**23
_ROUND_BITS = 0x4B400000
_LOG2E = float.fromhex("0x1.715476p+0")
_GELU_LINEAR = float.fromhex("0x1.988454p-1")
_GELU_CUBIC = float.fromhex("0x1.2444f2p-5")


def _split_power(t: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``power`` and ``less_one`` with ``2^t = power * (1 + less_one)``, for ``t`` in [-126, 126]."""
    rounded = t + _ROUND
    power = ((rounded.view(torch.int32) - (_ROUND_BITS - 127)) << 23).view(torch.float32)
    return power, exp2_fraction_less_one(t - (rounded - _ROUND))


def relu(x: Tensor) -> Tensor:
    """Return ``max(x, 0)``."""
    return torch.where(x < 0, 0, x)


def tanh(x: Tensor) -> Tensor:
    """Return ``tanh(x)``."""
    power, less_one = _split_power((x * (2 * _LOG2E)).clamp(-40, 40))
    e = less_one * power + (power - 1)
    return e / (e + 2)


def silu(x: Tensor) -> Tensor:
    """Return ``x / (1 + exp(-x))``."""
    power, less_one = _split_power((x * -_LOG2E).clamp(-126, 126))
    return x / ((less_one + 1) * power + 1)


def gelu_tanh(x: Tensor) -> Tensor:
    """Return ``x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))``."""
    return x * 0.5 * (tanh(x * (x * x * _GELU_CUBIC + _GELU_LINEAR)) + 1)


ACTIVATIONS = {"relu": relu, "tanh": tanh, "silu": silu, "gelu_tanh": gelu_tanh}
"""By name, in the order of their numbers in the kernels."""
