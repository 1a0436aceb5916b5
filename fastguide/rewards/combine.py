"""Rewards made of rewards: weighted sums, and constraints that no accepted sample may break."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastguide.deferred import deferring, require
from fastguide.errors import RewardError
from fastguide.rewards.protocol import Reward, wrap


class Weighted(Reward):
    """The weighted sum of rewards, ``Σ w_k r_k``; also what ``a + 0.5 * b`` makes.

    It is deterministic, batch invariant and differentiable where all its terms are; constraints count for nothing in
    gradients.

    Args:
        terms: ``{reward: weight}`` or ``[(weight, reward), …]``; a plain callable is wrapped.
        name: column name, by default the sum written out.

    Attributes:
        terms: the pairs of weight and reward.

    Raises:
        ValueError: there are no terms, a weight is not finite, two terms have one name, or a constraint's weight is not
            positive (it would reward what it forbids).
    """

    def __init__(
        self,
        terms: Mapping[Reward, float] | Sequence[tuple[float, Reward | Callable[..., Any]]],
        *,
        name: str | None = None,
    ) -> None:
        pairs = [(weight, reward) for reward, weight in terms.items()] if isinstance(terms, Mapping) else terms
        self.terms = tuple((float(weight), wrap(reward)) for weight, reward in pairs)
        if not self.terms:
            raise ValueError("terms: no reward given; write {reward: weight}")
        names = [reward.name for _, reward in self.terms]
        for i, (weight, reward) in enumerate(self.terms):
            if not math.isfinite(weight):
                raise ValueError(f"terms: the weight of {reward.name} is {weight}; expected a finite number")
            if weight <= 0 and isinstance(reward, Constraint):
                raise ValueError(
                    f"terms: the constraint {reward.name} has the weight {weight:g}; it has to be positive"
                )
            if reward.name in names[:i]:
                raise ValueError(f"terms: two rewards are named {reward.name!r}; give one of them another name=")
        self.name = name or "".join(_written(weight, reward) for weight, reward in self.terms).removeprefix("+")
        rewards = [reward for _, reward in self.terms]
        self.deterministic = all(reward.deterministic for reward in rewards)
        self.batch_invariant = all(reward.batch_invariant for reward in rewards)
        self.cheap = all(reward.cheap for reward in rewards)
        smooth = [reward for reward in rewards if not isinstance(reward, Constraint)]
        self.differentiable = bool(smooth) and all(reward.differentiable for reward in smooth)
        devices = {reward.device for reward in rewards}
        self.device = devices.pop() if len(devices) == 1 else None

    def __call__(self, x0: Any) -> Tensor:
        """Return float64 ``[n]``, summed in the order of the terms."""
        values = self.parts(x0)
        total: Tensor | None = None
        for weight, reward in self.terms:
            # 0 · −inf would be nan.
            if weight:
                term = weight * values[reward.name].to(torch.float64)
                total = (torch.zeros_like(term) if total is None else total.to(term.device)) + term
        return torch.zeros(len(x0), dtype=torch.float64) if total is None else total

    def soft(self, x0: Tensor) -> Tensor:
        """Return float64 ``[n]`` with gradients; constraints, flat wherever they hold, are left out."""
        terms = [(weight, reward) for weight, reward in self.terms if weight and not isinstance(reward, Constraint)]
        if not terms:
            return super().soft(x0)
        values = [weight * reward.soft(x0).to(torch.float64) for weight, reward in terms]
        return torch.stack([value.to(x0.device) for value in values]).sum(dim=0)

    def parts(self, x0: Any) -> dict[str, Tensor]:
        """Return the values ``[n]`` of each term by its name, without weights: the columns of a report.

        Raises:
            RewardError: a term gave nan or the wrong shape.
        """
        return {reward.name: _evaluate(reward, x0) for _, reward in self.terms}


class Constraint(Reward):
    """0 where a condition holds, ``-inf`` where it is violated: no sample that breaks it is in any result.

    Conditions on single positions (an amino acid never drawn) are cheaper as ``omit``, which masks the draw itself.

    Args:
        predicate: maps clean samples (``[n, L]`` int64 tokens) to bool ``[n]``, True where the condition holds.
        name: column name.
        batch_invariant: whether the predicate gives a sample the same answer in any batch; exact ones do.
    """

    def __init__(self, predicate: Callable[[Any], Tensor], *, name: str, batch_invariant: bool = True) -> None:
        if not callable(predicate):
            raise TypeError(f"predicate: expected a callable x0 -> bool [n], got {type(predicate).__name__}")
        self.predicate = predicate
        self.name = name
        self.batch_invariant = batch_invariant

    def __call__(self, x0: Any) -> Tensor:
        """Return float32 ``[n]``, 0 or ``-inf``."""
        holds = self.predicate(x0)
        if not isinstance(holds, Tensor) or holds.dtype != torch.bool or holds.shape != (len(x0),):
            got = f"{holds.dtype} {list(holds.shape)}" if isinstance(holds, Tensor) else type(holds).__name__
            raise RewardError(f"{self.name}: the predicate has to return bool [{len(x0)}], got {got}")
        return torch.where(holds, 0.0, -math.inf)


def _evaluate(reward: Reward, x0: Any) -> Tensor:
    values = torch.as_tensor(reward(x0))
    if values.shape != (len(x0),):
        raise RewardError(f"{reward.name}: expected values of the shape [{len(x0)}], got {list(values.shape)}")
    if len(values):
        known = None if deferring() else x0  # samples are not kept for a check that is read later
        require(
            ~values.isnan(),
            values,
            lambda row, _: RewardError(
                f"{reward.name}: the value of sample {row} is nan", sample=None if known is None else known[row]
            ),
        )
    return values


def _written(weight: float, reward: Reward) -> str:
    factor = "" if abs(weight) == 1 else f"{abs(weight):g}*"
    name = f"({reward.name})" if isinstance(reward, Weighted) else reward.name
    return f"{'-' if weight < 0 else '+'}{factor}{name}"
