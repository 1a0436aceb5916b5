r"""Guidance that changes on the way: its temperature, its number of children, its resampling, or the algorithm itself.

    fg.Scheduled({0: fg.NestedSMC(alpha=1.0, branch=8), 30: fg.SMC(alpha=0.5)})
    fg.Scheduled.each(lambda step: fg.SVDD(alpha=max(0.2, 1 - step / 50), branch=4 + step // 10), steps=50)

Phases either all carry weights or none of them does. Where weighted phases change the temperature from ``alpha`` to ``alpha'``,
each weight takes the factor ``exp(v / alpha' − v / alpha)`` of its particle's own value, so that the product of all weights
still telescopes to ``exp(r / alpha_last)``: the target is that of the last phase, exactly, and its normaliser stays unbiased.

Source: the tempering argument of Del Moral, Doucet and Jasra, 2006, section 3; the steps of a run are its sequence of targets.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from fastguide.guidance.protocol import Guidance, State, reads_values

_GOLDEN = 0x9E3779B97F4A7C15
"""2**64 over the golden ratio: its multiples set the random numbers of phases apart; the first keeps the seed as it is."""


@dataclass(frozen=True)
class Scheduled:
    """Take each step by the guidance whose turn it is.

    Args:
        phases: ``{first step: guidance}``; one of them starts at step 0.
    """

    phases: Mapping[int, Guidance]
    _starts: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        phases = dict(self.phases)
        if not phases or any(isinstance(s, bool) or not isinstance(s, int) or s < 0 for s in phases) or 0 not in phases:
            raise ValueError(f"phases: expected {{first step: guidance, …}} with one that starts at 0, got {phases!r}")
        for start, guidance in phases.items():
            if isinstance(guidance, type) or not isinstance(guidance, Guidance) or isinstance(guidance, Scheduled):
                raise TypeError(f"phases: expected fg.SMC(...) or the like at step {start}, got {guidance!r}")
            if getattr(guidance, "potential", "difference") != "difference" or getattr(guidance, "target_ess", None):
                raise ValueError(
                    f"phases: {guidance!r}: a phase has the potential 'difference' and a temperature of its own"
                )
            if getattr(guidance, "alphas", ()):
                raise ValueError(f"phases: {guidance!r}: give alpha by phases instead of alphas")
        if len({guidance.estimates_normalizer for guidance in phases.values()}) > 1:
            weighted = ", ".join(type(g).__name__ for g in phases.values() if g.estimates_normalizer)
            raise ValueError(f"phases: {weighted} carry weights, and the others do not; they cannot follow each other")
        starts = tuple(sorted(phases))
        object.__setattr__(self, "phases", {start: phases[start] for start in starts})
        object.__setattr__(self, "_starts", starts)

    @classmethod
    def each(cls, guidance: Callable[[int], Guidance], *, steps: int) -> Scheduled:
        """Return the schedule whose step k is taken by ``guidance(k)``; equal neighbours are one phase."""
        phases: dict[int, Guidance] = {}
        for step in range(steps):
            found = guidance(step)
            if not phases or found != phases[max(phases)]:
                phases[step] = found
        return cls(phases)

    @property
    def alpha(self) -> float:
        """Temperature of the last phase, which is that of the target."""
        return self.phases[self._starts[-1]].alpha

    @property
    def branch(self) -> int:
        """The most children that any phase proposes."""
        return max(guidance.branch for guidance in self.phases.values())

    @property
    def consistent(self) -> bool:
        """Whether all phases are."""
        return all(guidance.consistent for guidance in self.phases.values())

    @property
    def estimates_normalizer(self) -> bool:
        """Whether the phases carry weights."""
        return self.phases[0].estimates_normalizer

    @property
    def value_steps(self) -> Collection[int] | None:
        """The steps at which the phase whose turn it is reads values."""
        if all(guidance.value_steps is None for guidance in self.phases.values()):
            return None
        return cast(Collection[int], _Reads(self))

    def at(self, step: int) -> Guidance:
        """Return the guidance that takes step ``step``."""
        return self.phases[max(start for start in self._starts if start <= step)]

    def phase(self, step: int) -> int:
        """Return the number of the phase that step ``step`` belongs to, from 0."""
        return sum(start <= step for start in self._starts) - 1

    def begin(self, values: Tensor) -> State:
        """Start as the first phase does."""
        return self.phases[0].begin(values)

    def step(
        self, state: State, values: Tensor, *, seeds: Tensor, log_ratio: Tensor | None = None, final: bool = False
    ) -> tuple[State, Tensor]:
        """Take the step of the phase whose turn it is."""
        guidance = self.at(state.step)
        if state.step in self._starts[1:]:
            state = self._entered(state, self.at(state.step - 1), guidance)
        apart = (self.phase(state.step) * _GOLDEN + 2**63) % 2**64 - 2**63
        return guidance.step(state, values, seeds=seeds + apart, log_ratio=log_ratio, final=final)

    def _entered(self, state: State, before: Guidance, after: Guidance) -> State:
        """Return the state as the next phase counts it: its weights at the new temperature, nothing else carried."""
        if not self.estimates_normalizer or before.alpha == after.alpha:
            return state._replace(carried=())
        change = torch.where(state.values == -torch.inf, 0.0, state.values) * (1.0 / after.alpha - 1.0 / before.alpha)
        return state._replace(log_weights=state.log_weights + change, carried=())


class _Reads(Container[int]):
    def __init__(self, scheduled: Scheduled) -> None:
        self.scheduled = scheduled

    def __contains__(self, step: object) -> bool:
        # The values after k steps are read by the guidance that took step k − 1; those of the noise by the first.
        return isinstance(step, int) and reads_values(self.scheduled.at(max(step - 1, 0)), step)
