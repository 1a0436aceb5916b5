r"""Classifier guidance: every step leans to where the reward rises, and nothing is weighed or selected.

The cheapest guidance of a differentiable reward: no values on the way, one reward a sample at the end. Its samples are those of
the guided process and not of the target: the gradient is that of a look-ahead, and of several positions revealed in one step
each is guided by itself. `TDS` draws in the same way and corrects for both.

Sources: Dhariwal and Nichol, 2105.05233 (real states); Nisonoff et al., 2406.01572 (tokens).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fastguide.guidance.gradients import Estimator, GradientProposal, check_gradient
from fastguide.guidance.protocol import State, check_alpha, start


@dataclass(frozen=True)
class ClassifierGuidance:
    """Draw from guided proposals; keep every particle.

    Args:
        alpha: temperature of the tilt, in units of the reward; > 0.
        gradient: as for `fastguide.TDS`. scale: likewise. clip: likewise.
    """

    alpha: float = 1.0
    gradient: str | Estimator | None = None
    scale: float | Callable[[float], float] = 1.0
    clip: float | None = None

    branch: ClassVar[int] = 1
    consistent: ClassVar[bool] = False
    estimates_normalizer: ClassVar[bool] = False
    value_steps: ClassVar[Collection[int] | None] = ()
    follows_clock: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", check_alpha(self.alpha, positive=True))
        check_gradient(self.gradient, self.scale, self.clip)

    @property
    def proposal(self) -> GradientProposal:
        """What draws the children."""
        return GradientProposal(self.alpha, self.gradient, self.scale, self.clip, corrected=False)

    def begin(self, values: Tensor) -> State:
        """Start without weights; no value is read."""
        return start(torch.zeros_like(values), torch.zeros_like(values))

    def step(
        self, state: State, values: Tensor, *, seeds: Tensor, log_ratio: Tensor | None = None, final: bool = False
    ) -> tuple[State, Tensor]:
        """Keep every child; one whose reward is −inf loses its weight at the end."""
        groups, n, _ = values.shape
        children = torch.arange(n, device=values.device).expand(groups, n)
        if not final:
            return state._replace(step=state.step + 1), children
        rewards = values[..., 0]
        log_weights = torch.where(rewards == -torch.inf, -torch.inf, 0.0).to(rewards)
        ess = (log_weights == 0).sum(dim=1).to(rewards)
        return State(log_weights, rewards, state.log_z, ess, state.resampled, state.step + 1), children
