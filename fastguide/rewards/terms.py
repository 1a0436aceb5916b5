"""Declarative shapes of a reward's value: say which range is wanted, not how to score it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastguide.rewards.protocol import Reward, wrap


class Shaped(Reward):
    """A function of another reward's value; it makes the same promises.

    Attributes:
        of: the reward inside, whose value reports show.
    """

    def __init__(self, of: Reward | Callable[..., Any], shape: Callable[[Tensor], Tensor], name: str) -> None:
        self.of = wrap(of)
        self.shape = shape
        self.name = name
        for promise in ("deterministic", "batch_invariant", "cheap", "differentiable", "device"):
            setattr(self, promise, getattr(self.of, promise))

    def __call__(self, x0: Any) -> Tensor:
        """Return float64 ``[n]``."""
        return self.shape(torch.as_tensor(self.of(x0)).to(torch.float64))

    def soft(self, x0: Tensor) -> Tensor:
        """Return float64 ``[n]`` with gradients."""
        return self.shape(self.of.soft(x0).to(torch.float64))


def linear(
    reward: Reward | Callable[..., Any], *, slope: float = 1.0, offset: float = 0.0, name: str | None = None
) -> Shaped:
    """``slope · (r − offset)``: sets the unit and the zero of a reward."""
    inner = wrap(reward)
    slope, offset = _finite("slope", slope), _finite("offset", offset)
    return Shaped(inner, lambda r: slope * (r - offset), name or f"linear({inner.name})")


def flat_bottom(
    reward: Reward | Callable[..., Any],
    *,
    low: float = -math.inf,
    high: float = math.inf,
    slope: float = 1.0,
    power: float = 1.0,
    name: str | None = None,
) -> Shaped:
    """0 while ``low <= r <= high``, and ``−slope · d**power`` at the distance d outside.

    Args:
        reward: a `Reward` or a callable ``x0 -> [n]``.
        low: least value that costs nothing. high: the largest.
        slope: penalty per unit of distance, at least 0.
        power: 1 for a penalty that grows evenly, 2 for a harmonic one; > 0.
        name: column name.
    """
    inner = wrap(reward)
    low, high = _range(low, high)
    slope, power = _finite("slope", slope), _finite("power", power)
    if slope < 0 or power <= 0:
        raise ValueError(f"slope, power: expected slope >= 0 and power > 0, got {slope:g} and {power:g}")

    def shape(r: Tensor) -> Tensor:
        # r − r.clamp(…) of an infinite r would be nan.
        outside = torch.where(r < low, low - r, torch.where(r > high, r - high, 0.0))
        return -slope * outside**power

    return Shaped(inner, shape, name or f"flat_bottom({inner.name})")


def clipped(
    reward: Reward | Callable[..., Any], *, low: float = -math.inf, high: float = math.inf, name: str | None = None
) -> Shaped:
    """``r`` held within ``[low, high]``: no reward for going further, which also stops a reward from being hacked beyond it.

    A reward of −inf stays −inf: what is forbidden is not made cheap.
    """
    inner = wrap(reward)
    low, high = _range(low, high)
    return Shaped(inner, lambda r: torch.where(r == -math.inf, r, r.clamp(low, high)), name or f"clipped({inner.name})")


def _finite(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name}: expected a finite number, got {value!r}")
    return float(value)


def _range(low: float, high: float) -> tuple[float, float]:
    if not low <= high or (math.isinf(low) and math.isinf(high)):
        raise ValueError(f"low, high: expected low <= high, at least one of them finite; got {low!r} and {high!r}")
    return float(low), float(high)
