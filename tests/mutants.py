"""Guidance with one plausible fault each; `tests/guidance/test_mutants.py` shows that the checks see every one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

import fastguide as fg
from fastguide.guidance import Guidance, State


def _with_score(state: State, score: torch.Tensor) -> State:
    return state._replace(carried=(score, *state.carried[1:]))


@dataclass(frozen=True)
class NoFirstWeight(fg.SMC):
    """The weight exp(v_T / alpha) of the first particles is left out."""

    def begin(self, values):
        state = super().begin(values)
        return state._replace(log_weights=torch.zeros_like(state.log_weights))


@dataclass(frozen=True)
class DroppedWeights(fg.SMC):
    """Weights start again at every step, resampled or not."""

    def step(self, state, values, *, final=False, **options: Any):
        state, children = super().step(state, values, final=final, **options)
        kept = torch.where(state.resampled[:, None] | final, state.log_weights, 0.0)
        return state._replace(log_weights=kept), children


@dataclass(frozen=True)
class RedrawnValue(fg.SMC):
    """The parent's value is estimated anew for the denominator."""

    def step(self, state, values, **options: Any):
        generator = torch.Generator().manual_seed(state.step)
        noise = 0.5 * torch.randn(state.values.shape, generator=generator, dtype=torch.float64)
        return super().step(_with_score(state, noise), values, **options)


@dataclass(frozen=True)
class NoFinalCorrection(fg.SMC):
    """The reward is added at the end, and what the lineage was given on the way is not taken back."""

    def step(self, state, values, *, final=False, **options: Any):
        if final:
            state = _with_score(state, torch.zeros_like(state.values))
        return super().step(state, values, final=final, **options)


@dataclass(frozen=True)
class LocalAncestors(fg.SMC):
    """Values of all groups are moved by ancestors numbered within the group, as if these were global."""

    def step(self, state, values, *, final=False, **options: Any):
        state, children = super().step(state, values, final=final, **options)
        moved = values.flatten()[children]
        return (state if final else _with_score(state, moved)), children


@dataclass(frozen=True)
class OneBeta(fg.SMC):
    """The parent's value is divided by the child's temperature."""

    def step(self, state, values, *, final=False, **options: Any):
        following = state.step + 1
        alpha = self.alphas[following] if following < len(self.alphas) and not final else self.alpha
        score, running, beta = state.carried
        state = state._replace(carried=(score, running, torch.full_like(beta, 1 / alpha)))
        return super().step(state, values, final=final, **options)


@dataclass(frozen=True)
class ChosenChildsWeight(fg.NestedSMC):
    """A particle is weighed by the child it goes on with, not by the mean of its children."""

    def step(self, state, values, **options: Any):
        after, children = super().step(state, values, **options)
        own = state.log_weights + (after.values - state.values) / self.alpha
        return after._replace(log_weights=torch.where(after.resampled[:, None], 0.0, own)), children


@dataclass(frozen=True)
class NoRatio(fg.TDS):
    """Weights leave out p/q of the guided proposals. It takes a run to see: `tests/guidance/test_tds.py`."""

    def step(self, state, values, *, log_ratio=None, **options: Any):
        return super().step(state, values, **options)


MUTANTS: tuple[Guidance, ...] = (
    NoFirstWeight(),
    DroppedWeights(),
    RedrawnValue(),
    *(NoFinalCorrection(potential=potential) for potential in ("difference", "max", "max_difference")),
    NoFinalCorrection(value_steps=(1, 2)),
    LocalAncestors(),
    OneBeta(alphas=(4.0, 3.0, 2.0)),
    ChosenChildsWeight(branch=3, ess_threshold=0.0),
)
"""Each mutant with settings under which its fault is at work."""
