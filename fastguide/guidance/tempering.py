"""Temperatures on the way: checked schedules, and the bisection that finds one from the weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from fastguide.guidance.protocol import is_number

BISECTIONS = 30
"""A billionth of the interval: the effective sample size no longer tells inverse temperatures apart."""


def highest(ess: Callable[[Tensor], Tensor], target: float, low: Tensor, high: float) -> Tensor:
    """Return, for each group, the inverse temperature from ``low`` ``[G]`` to ``high`` at which ``ess`` falls to ``target``.

    It is ``high`` where ``ess`` is not below ``target`` there, and ``low`` where it is below ``target`` already. Between them
    ``ess`` ends below ``target`` by a hair, so that a group whose threshold is the same resamples.
    """
    least, most = low, torch.full_like(low, high)
    stays, ends = ess(least) < target, ess(most) >= target
    for _ in range(BISECTIONS):
        middle = 0.5 * (least + most)
        enough = ess(middle) >= target
        least, most = torch.where(enough, middle, least), torch.where(enough, most, middle)
    return torch.where(ends, high, torch.where(stays, low, most))


def check_alphas(alphas: Sequence[float]) -> tuple[float, ...]:
    """Return temperatures as a tuple of floats; refuse what is not finite and above 0."""
    listed = alphas.tolist() if hasattr(alphas, "tolist") else alphas
    if not isinstance(listed, (list, tuple)) or not all(is_number(a) and a > 0 for a in listed):
        raise ValueError(f"alphas: expected a sequence of finite numbers above 0, one a step, got {alphas!r}")
    return tuple(float(a) for a in listed)


def check_target_ess(target: float | None, ess_threshold: float, alphas: Sequence[float]) -> float | None:
    """Return a fraction of N as a float; refuse one at which tempering would stall, and two sources of temperatures."""
    if target is None:
        return None
    if not is_number(target) or not 0.0 < target < 1.0:
        raise ValueError(f"target_ess: expected a fraction between 0 and 1, or None, got {target!r}")
    if alphas:
        raise ValueError("target_ess: the temperatures are given by alphas; leave out one of the two")
    if target > ess_threshold:
        raise ValueError(
            f"target_ess: {target:g} is above ess_threshold {ess_threshold:g}: groups would stay at the one and never "
            "reach the other to resample; raise ess_threshold"
        )
    return float(target)
