r"""Best of N: draw from the pretrained model and let the reward act once, at the end.

The samples get the exact importance weights ``exp(r(x_0) / alpha)``; their mean is the plain Monte Carlo estimate of
``E_p[exp(r / alpha)]``, and `Result.best` gives the top k. No value is computed on the way, so it is the cheapest method and
the base line of all others; its best reward grows only like the quantiles of the pretrained law.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fastguide import ops
from fastguide.guidance.protocol import State, check_alpha, start


@dataclass(frozen=True)
class BestOfN:
    """Weigh unguided samples by their reward.

    Args:
        alpha: temperature of the final weights, in units of the reward; 0 leaves the samples unweighted.
    """

    alpha: float = 1.0

    branch: ClassVar[int] = 1
    consistent: ClassVar[bool] = True
    value_steps: ClassVar[Collection[int] | None] = ()
    follows_clock: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", check_alpha(self.alpha, positive=False))

    @property
    def estimates_normalizer(self) -> bool:
        """Whether there are weights to estimate the normaliser from."""
        return self.alpha > 0

    def begin(self, values: Tensor) -> State:
        """Start with equal weights; no value is read."""
        return start(torch.zeros_like(values), torch.zeros_like(values))

    def step(
        self, state: State, values: Tensor, *, seeds: Tensor, log_ratio: Tensor | None = None, final: bool = False
    ) -> tuple[State, Tensor]:
        """Keep every particle; weigh by the reward when ``final``."""
        groups, n, _ = values.shape
        children = torch.arange(n, device=values.device).expand(groups, n)
        carried = state.log_weights if log_ratio is None else state.log_weights + log_ratio[..., 0]
        if not final:
            return state._replace(log_weights=carried, step=state.step + 1), children
        rewards = values[..., 0]
        if self.alpha > 0:
            log_weights = carried + rewards / self.alpha
        else:
            log_weights = torch.where(rewards == -torch.inf, -torch.inf, 0.0)
        ess = ops.select(log_weights, 1, seed=seeds, step=state.step, degenerate="keep").ess
        return State(log_weights, rewards, state.log_z, ess, state.resampled, state.step + 1), children
