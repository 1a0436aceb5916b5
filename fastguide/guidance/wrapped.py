"""Guidance around other guidance: what it does not say itself is that of the other."""

from __future__ import annotations

from collections.abc import Collection

from torch import Tensor

from fastguide.guidance.protocol import Guidance, Proposal, State, proposal_of


class Wrapped:
    """Attributes and steps of ``guidance``, for algorithms that run it in a loop of their own."""

    guidance: Guidance

    @property
    def alpha(self) -> float:
        """Temperature."""
        return self.guidance.alpha

    @property
    def branch(self) -> int:
        """Children a particle."""
        return self.guidance.branch

    @property
    def consistent(self) -> bool:
        """Whether the weighted samples converge to the target."""
        return self.guidance.consistent

    @property
    def estimates_normalizer(self) -> bool:
        """Whether the weights estimate the normaliser."""
        return self.guidance.estimates_normalizer

    @property
    def value_steps(self) -> Collection[int] | None:
        """The steps at which the wrapped guidance reads values."""
        return self.guidance.value_steps

    @property
    def proposal(self) -> Proposal | None:
        """How proposals are guided."""
        return proposal_of(self.guidance)

    def begin(self, values: Tensor) -> State:
        """Start as the wrapped guidance does."""
        return self.guidance.begin(values)

    def step(
        self, state: State, values: Tensor, *, seeds: Tensor, log_ratio: Tensor | None = None, final: bool = False
    ) -> tuple[State, Tensor]:
        """Take a step of the wrapped guidance."""
        return self.guidance.step(state, values, seeds=seeds, log_ratio=log_ratio, final=final)
