r"""Beam search: keep the children of highest value, and nothing else matters (alpha = 0).

    "group":  the N best of the group's N·M children;      "parent":  the best child of every particle.

``"group"`` is greedy over the whole group: after a few steps all particles descend from one or two, so it finds high rewards
fast and little variety. ``"parent"`` is `SVDD` at alpha = 0: particles never compete and stay as diverse as their proposals.
Both maximise the *estimated* value, so they exploit its errors (reward hacking) more than any method that draws.

``value=fg.MonteCarlo(rollouts=4, depth=2)`` values a child by the best of four states two steps deeper: that sees past the next
step, at ``rollouts · depth`` denoiser rows a child.

Neither converges to a target: the samples are unweighted, there is no normaliser, and more children or particles only push
further towards the largest reward that the values can see. Use it when one good sample is wanted, and compare with `BestOfN`.

Source: Uehara et al., 2501.09685, section 3 (value-based search at alpha → 0).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fastguide import ops
from fastguide.guidance.protocol import State, check_branch, start

SURVIVORS = ("group", "parent")


@dataclass(frozen=True)
class Beam:
    """Keep the children of highest value; ties go to the first.

    Args:
        branch: children M per particle, at least 2.
        best_of: what a child has to be among the best of: its ``"group"`` or its ``"parent"``'s children.
    """

    branch: int = 8
    best_of: str = "group"

    alpha: ClassVar[float] = 0.0
    consistent: ClassVar[bool] = False
    estimates_normalizer: ClassVar[bool] = False
    value_steps: ClassVar[Collection[int] | None] = None
    follows_clock: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "branch", check_branch(self.branch, least=2))
        if self.best_of not in SURVIVORS:
            raise ValueError(f"best_of: unknown {self.best_of!r}; choose one of {', '.join(SURVIVORS)}")

    def begin(self, values: Tensor) -> State:
        """Start with equal weights."""
        return start(values, torch.zeros_like(values))

    def step(
        self, state: State, values: Tensor, *, seeds: Tensor, log_ratio: Tensor | None = None, final: bool = False
    ) -> tuple[State, Tensor]:
        """Keep the N children of highest value of each group, best first, or the best child of each parent."""
        groups, n, branch = values.shape
        everyone = values.reshape(groups, -1)
        competing = everyone if self.best_of == "group" else values
        # Relative to the best of them, rewards of any size can be ranked.
        best = competing.amax(-1, keepdim=True)
        scores = competing - torch.where(best > -torch.inf, best, 0.0)
        children = ops.select(scores, n if self.best_of == "group" else 1, rule="topk", degenerate="keep").ancestors.to(
            torch.int64
        )
        if self.best_of == "parent":
            children = children[..., 0] + torch.arange(n, device=values.device) * branch
        kept = everyone.gather(1, children)
        # A sample that the reward forbids has weight zero, however it came about.
        log_weights = torch.where(kept == -torch.inf, -torch.inf, 0.0) if final else state.log_weights
        resampled = torch.ones_like(state.resampled)
        return state._replace(log_weights=log_weights, values=kept, resampled=resampled, step=state.step + 1), children
