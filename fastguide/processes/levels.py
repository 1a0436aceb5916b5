"""Noise levels of Gaussian diffusions: ``x_t = alpha_t x_0 + sigma_t eps`` at T + 1 levels, from noise to data.

| schedule | levels | source |
|---|---|---|
| ``"linear"`` | variance preserving, ``log alpha² = −(β0 t + (β1 − β0) t² / 2)``, β from 0.1 to 20 | 2006.11239, 2011.13456 |
| ``"cosine"`` | variance preserving, ``alpha ∝ cos((t + 0.008) / 1.008 · π / 2)`` | 2102.09672 |
| ``"loglinear"`` | alpha = 1, log sigma linear in t from ``sigma_max`` to ``sigma_min`` | 2011.13456 |
| ``"karras"`` | alpha = 1, ``sigma^(1/rho)`` linear in t from ``sigma_max`` to ``sigma_min`` | 2206.00364 |
| ``"flow"`` | ``alpha = 1 − t``, ``sigma = t`` | 2209.03003, 2210.02747 |

The last level is always the data: alpha = 1, sigma = 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

SCHEDULES = ("linear", "cosine", "loglinear", "karras", "flow")
EXPLODING = ("loglinear", "karras")
"""Schedules with alpha = 1 throughout."""
LEAST_RATIO = 1e-3
"""A level of alpha² is at least this much of the next, as in 2102.09672, so that noise tells something of x_0 everywhere."""

Schedule = str | Callable[[float], float] | Sequence[float] | Tensor


class Levels(NamedTuple):
    """T + 1 levels, from noise to data.

    Attributes:
        times: t in [0, 1] that the denoiser is told, decreasing from at most 1 to 0.
        alphas: signal, increasing to 1. sigmas: noise, decreasing to 0.
        timesteps: T indices into the levels that a network was trained at, where ``schedule`` lists them.
    """

    times: tuple[float, ...]
    alphas: tuple[float, ...]
    sigmas: tuple[float, ...]
    timesteps: tuple[int, ...] | None = None


def numbers(name: str, values: Sequence[float] | Tensor) -> tuple[float, ...]:
    """Return a list or tensor of numbers as a tuple of floats."""
    try:
        given = values.detach().to("cpu", torch.float64) if isinstance(values, Tensor) else values
        listed = tuple(float(v) for v in given)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: expected a list of numbers, got {type(values).__name__}") from None
    if not all(math.isfinite(v) for v in listed):
        raise ValueError(f"{name}: expected finite numbers, got {next(v for v in listed if not math.isfinite(v))}")
    return listed


def levels(
    schedule: Schedule, steps: int, sigmas: Sequence[float] | None, sigma_min: float, sigma_max: float, rho: float
) -> Levels:
    """Return the levels of a schedule; arguments as those of `fastguide.GaussianProcess`."""
    times = (*(1.0 - k / steps for k in range(steps)), 0.0)
    if sigmas is not None:
        return _of_sigmas(sigmas, steps, times, flow=schedule == "flow")
    if isinstance(schedule, str):
        if schedule not in SCHEDULES:
            raise ValueError(
                f"schedule: unknown {schedule!r}; choose one of {', '.join(SCHEDULES)}, or give a function alpha_bar(t) or "
                "a network's alphas_cumprod"
            )
        if schedule == "flow":
            return Levels(times, tuple(1.0 - t for t in times), times)
        if schedule in EXPLODING:
            return Levels(times, (1.0,) * (steps + 1), _exploding(schedule, steps, sigma_min, sigma_max, rho))
        return _preserving([_ALPHA_BAR[schedule](t) for t in times[:-1]], times)
    if callable(schedule):
        return _preserving([float(schedule(t)) for t in times[:-1]], times)
    return _of_trained(numbers("schedule", schedule), steps)


def _linear(t: float) -> float:
    return math.exp(-(0.1 * t + 19.9 * t * t / 2.0))


def _cosine(t: float) -> float:
    return (math.cos((t + 0.008) / 1.008 * math.pi / 2.0) / math.cos(0.008 / 1.008 * math.pi / 2.0)) ** 2


_ALPHA_BAR: dict[str, Callable[[float], float]] = {"linear": _linear, "cosine": _cosine}


def _exploding(schedule: str, steps: int, low: float, high: float, rho: float) -> tuple[float, ...]:
    share = [k / (steps - 1) if steps > 1 else 0.0 for k in range(steps)]
    if schedule == "loglinear":
        noisy = [high * (low / high) ** u for u in share]
    else:
        a, b = high ** (1.0 / rho), low ** (1.0 / rho)
        noisy = [(a + u * (b - a)) ** rho for u in share]
    return (*noisy, 0.0)


def _preserving(alpha_bar: list[float], times: tuple[float, ...]) -> Levels:
    """Return variance-preserving levels from ``alpha_t²`` of all but the last."""
    for k in reversed(range(len(alpha_bar) - 1)):
        alpha_bar[k] = max(alpha_bar[k], LEAST_RATIO * alpha_bar[k + 1])
    if not all(0.0 < a < 1.0 for a in alpha_bar) or any(s <= t for t, s in pairwise(alpha_bar)):
        raise ValueError("schedule: alpha_bar(t) must rise from noise to data, between 0 and 1")
    return Levels(times, (*(math.sqrt(a) for a in alpha_bar), 1.0), (*(math.sqrt(1.0 - a) for a in alpha_bar), 0.0))


def _of_trained(alphas_cumprod: tuple[float, ...], steps: int) -> Levels:
    """Return ``steps`` of the levels a network was trained at, the noisiest among them ("trailing", 2305.08891)."""
    trained = len(alphas_cumprod)
    if steps > trained:
        raise ValueError(f"steps: {steps}, but schedule lists only {trained} levels")
    timesteps = tuple(round(trained - k * trained / steps) - 1 for k in range(steps))
    times = (*((i + 1) / trained for i in timesteps), 0.0)
    return _preserving([alphas_cumprod[i] for i in timesteps], times)._replace(timesteps=timesteps)


def _of_sigmas(sigmas: Sequence[float], steps: int, times: tuple[float, ...], *, flow: bool) -> Levels:
    given = numbers("sigmas", sigmas)
    if len(given) != steps + 1 or given[-1] != 0.0 or any(s >= t for t, s in pairwise(given)):
        raise ValueError(f"sigmas: expected {steps + 1} numbers for {steps} steps, decreasing to 0, got {list(given)}")
    if not flow:
        return Levels(times, (1.0,) * (steps + 1), given)
    if given[0] > 1.0:
        raise ValueError(f'sigmas: with schedule="flow" they lie in 0..1, got {given[0]}')
    return Levels(given, tuple(1.0 - s for s in given), given)
