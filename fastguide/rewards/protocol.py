"""The reward protocol: what the loop asks of a reward, and how a plain callable meets it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Reward:
    """Base class of rewards: a callable from clean samples to one number each.

    Attributes:
        name: column name in tables and reports.
        deterministic: True promises that equal samples have equal rewards; values are then remembered by sample.
        batch_invariant: True promises that a row's value has the same bits in any batch. Others are called with one fixed
            number of rows, padded by repeating the last.
        cheap: True says that a row costs less than looking its value up (compiled values): rows are then evaluated as they
            come, neither merged nor remembered. Such a reward must not write into its argument.
        differentiable: whether gradients flow from the value to a soft one-hot sample.
        device: where it runs, None for wherever the samples are.
    """

    name: str = "reward"
    deterministic: bool = True
    batch_invariant: bool = False
    cheap: bool = False
    differentiable: bool = False
    device: torch.device | None = None

    def __call__(self, x0: Any) -> Tensor:
        """Return ``[n]`` values of the clean samples ``x0`` (``[n, L]`` int64 tokens, or what ``decode`` made of them)."""
        raise NotImplementedError

    def soft(self, x0: Tensor) -> Tensor:
        """Return ``[n]`` values with gradients to ``x0``: weights of tokens ``[n, L, V]``, or real samples ``[n, *shape]``.

        At one-hot weights it is the value of the sample. Unless overridden, a differentiable reward is called with ``x0``.
        """
        if not self.differentiable:
            raise TypeError(
                f"reward '{self.name}': it is not differentiable; override soft(x0), or where torch can follow a plain "
                "function of x0, give it to fg.rewards.wrap(fn, differentiable=True)"
            )
        return self(x0)

    def __add__(self, other: Reward) -> Reward:
        return _sum(self, other, 1.0)

    def __sub__(self, other: Reward) -> Reward:
        return _sum(self, other, -1.0)

    def __mul__(self, weight: float) -> Reward:
        from fastguide.rewards.combine import Weighted

        if not isinstance(weight, (int, float)):
            return NotImplemented
        return Weighted([(weight * factor, reward) for factor, reward in _terms(self)])

    __rmul__ = __mul__

    def __neg__(self) -> Reward:
        return self * -1.0


def _terms(reward: Reward) -> tuple[tuple[float, Reward], ...]:
    from fastguide.rewards.combine import Weighted

    return reward.terms if isinstance(reward, Weighted) else ((1.0, reward),)


def _sum(left: Reward, right: Reward, sign: float) -> Reward:
    from fastguide.rewards.combine import Weighted

    if not isinstance(right, Reward):
        return NotImplemented
    return Weighted([*_terms(left), *((sign * weight, reward) for weight, reward in _terms(right))])


class _Wrapped(Reward):
    def __init__(
        self, fn: Callable[..., Any], name: str | None, deterministic: bool, batch_invariant: bool, differentiable: bool
    ) -> None:
        self.fn = fn
        self.name = name or getattr(fn, "__name__", type(fn).__name__).strip("<>")
        self.deterministic = deterministic
        self.batch_invariant = batch_invariant
        self.cheap = bool(getattr(fn, "cheap", False))
        self.differentiable = differentiable
        self.device = getattr(fn, "device", None) if not isinstance(fn, torch.nn.Module) else None

    def __call__(self, x0: Any) -> Any:
        return self.fn(x0)


def wrap(
    fn: Callable[..., Any],
    *,
    name: str | None = None,
    deterministic: bool | None = None,
    batch_invariant: bool | None = None,
    differentiable: bool | None = None,
) -> Reward:
    """Turn a callable ``x0 -> [n]`` into a `Reward`; a `Reward` is returned as it is.

    Attributes that ``fn`` already carries (``deterministic``, ``batch_invariant``, …) are kept unless given here. A plain
    callable counts as deterministic, not batch invariant and not differentiable; where it is, it takes soft one-hot rows
    ``[n, L, V]`` as well as tokens.
    """
    if isinstance(fn, Reward):
        return fn
    if not callable(fn):
        raise TypeError(f"reward: expected a callable x0 -> [n], got {type(fn).__name__}")
    if deterministic is None:
        deterministic = bool(getattr(fn, "deterministic", True))
    if batch_invariant is None:
        batch_invariant = bool(getattr(fn, "batch_invariant", False))
    if differentiable is None:
        differentiable = bool(getattr(fn, "differentiable", False))
    return _Wrapped(fn, name or getattr(fn, "name", None), deterministic, batch_invariant, differentiable)


class _Each(Reward):
    batch_invariant = True

    def __init__(self, fn: Callable[[Any], float], name: str | None, deterministic: bool) -> None:
        self.fn = fn
        self.name = name or getattr(fn, "__name__", type(fn).__name__).strip("<>")
        self.deterministic = deterministic

    def __call__(self, x0: Any) -> Tensor:
        return torch.tensor([float(self.fn(sample)) for sample in x0], dtype=torch.float64, device="cpu")


def each(fn: Callable[[Any], float], *, name: str | None = None, deterministic: bool = True) -> Reward:
    """Turn a one-at-a-time callable (a string or token row -> float) into a `Reward`.

    Equal samples are evaluated once. Use ``decode=`` of `fastguide.sample` to hand ``fn`` strings instead of token rows.
    """
    if not callable(fn):
        raise TypeError(f"fn: expected a callable sample -> float, got {type(fn).__name__}")
    return _Each(fn, name, deterministic)
