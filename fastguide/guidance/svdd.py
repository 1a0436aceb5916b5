r"""Soft value-based decoding: each particle proposes M children and keeps one of them.

    keep child m with probability ∝ [p/q] · exp(v_{t−1}(child m) / alpha);   alpha = 0 keeps the best.

Particles never compete, so they stay as diverse as the proposals are, and a group cannot collapse. The price: the parent's
mean weight is not carried, so the samples are biased for finite M (towards the pretrained model; exact as M → ∞) and there is
no estimate of the normaliser. Cost is linear in M.

Source: Li et al., 2408.08252; Uehara et al., 2501.09685, section 3 (value-based importance sampling).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fastguide import clock, ops
from fastguide.guidance.protocol import State, check_alpha, check_branch, start


@dataclass(frozen=True)
class SVDD:
    """Keep one of ``branch`` children of every particle, by its value.

    Args:
        alpha: temperature of the tilt, in units of the reward; 0 keeps the best child (ties to the first).
        branch: children M per particle, at least 2.
    """

    alpha: float = 1.0
    branch: int = 8

    consistent: ClassVar[bool] = False
    estimates_normalizer: ClassVar[bool] = False
    value_steps: ClassVar[Collection[int] | None] = None
    follows_clock: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", check_alpha(self.alpha, positive=False))
        object.__setattr__(self, "branch", check_branch(self.branch, least=2))

    def begin(self, values: Tensor) -> State:
        """Start with equal weights."""
        return start(values, torch.zeros_like(values))

    def step(
        self, state: State, values: Tensor, *, seeds: Tensor, log_ratio: Tensor | None = None, final: bool = False
    ) -> tuple[State, Tensor]:
        """Draw one child a parent ∝ its weight, or the best one at alpha = 0."""
        _, n, branch = values.shape
        scores = values if self.alpha == 0 else values / self.alpha
        if log_ratio is not None and self.alpha > 0:
            scores = scores + log_ratio
        rule = "argmax" if self.alpha == 0 else "multinomial"
        out = ops.select(scores, 1, rule=rule, seed=seeds, step=clock.number(state.step), degenerate="keep")
        child = out.ancestors.to(torch.int64)
        kept = values.gather(2, child)[..., 0]
        children = child[..., 0] + torch.arange(n, device=values.device) * branch
        # A sample that the reward forbids has weight zero, however it came about.
        log_weights = torch.where(kept == -torch.inf, -torch.inf, 0.0) if final else state.log_weights
        ess = out.ess.mean(dim=1) * (n / branch)
        resampled = torch.ones_like(state.resampled)
        return State(log_weights, kept, state.log_z, ess, resampled, state.step + 1), children
