"""Guidance that is watched while it runs."""

from __future__ import annotations

import torch
from torch import Tensor

from fastguide.guidance.protocol import Guidance, State


class Recorder:
    """Guidance that keeps what its children weigh within each parent; as ``base`` it keeps every first child."""

    def __init__(self, guidance: Guidance, *, base: bool) -> None:
        self.guidance, self.base = guidance, base
        self.weights: list[Tensor] = []
        self.alpha, self.branch, self.value_steps = guidance.alpha, guidance.branch, guidance.value_steps
        self.consistent, self.estimates_normalizer = guidance.consistent, guidance.estimates_normalizer
        self.proposal = getattr(guidance, "proposal", None)
        self.begin = guidance.begin

    def step(
        self, state: State, values: Tensor, *, seeds: Tensor, log_ratio: Tensor | None = None, final: bool = False
    ) -> tuple[State, Tensor]:
        """Take the step of the guidance, or go on with the first children."""
        scores = values / self.alpha if log_ratio is None else values / self.alpha + log_ratio
        self.weights.append(torch.softmax(scores, 2))
        if not self.base:
            return self.guidance.step(state, values, seeds=seeds, log_ratio=log_ratio, final=final)
        groups, n, branch = values.shape
        children = (torch.arange(n, device=values.device) * branch).expand(groups, n)
        return state._replace(values=values[..., 0], step=state.step + 1), children
