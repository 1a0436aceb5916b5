"""The reward of the predicted clean sample.

The cheapest look-ahead: ``v_t(x_t) ≈ r(x̂0(x_t))`` with x̂0 the denoiser's most probable token at each masked position, as in
the reference code of the tutorial (2501.09685). It costs one reward row a distinct x̂0, and no denoiser row, because the same
prediction serves the next proposal. It is biased as an estimate of the value; SMC and nested SMC are exact all the same,
because their weights telescope.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class PosteriorMean:
    """``v_t(x_t) = r(x̂0(x_t))``.

    Args:
        decode: how x̂0 is read off the prediction; ``"argmax"``, the most probable token (the lowest id on ties).
    """

    decode: str = "argmax"

    def __post_init__(self) -> None:
        if self.decode != "argmax":
            raise ValueError(f"decode: unknown {self.decode!r}; choose 'argmax'")

    def clean(self, process: Any, tokens: Tensor, logits: Tensor, **options: Any) -> Tensor:
        """Return the clean samples ``[U, L]`` whose rewards estimate the values of the states ``tokens``."""
        estimate: Tensor = process.mode(tokens, logits, **options)
        return estimate

    def combine(self, rewards: Tensor, previous: Tensor | None) -> Tensor:
        """Turn the rewards ``[G, R]`` of the estimates into values.

        A look-ahead of −inf says that x̂0 breaks a hard constraint, not that x_t cannot be completed: it counts as the lowest
        finite value of its group at this step, or, where there is none, as the parent's value (0 at the start). Any finite
        number keeps SMC exact; the constraint itself acts through the last weight, which is the reward.

        Args:
            rewards: ``[G, R]`` float64, R children a group.
            previous: ``[G, R]`` values of the parents, None at the first state.
        """
        broken = rewards == -torch.inf
        if not bool(broken.any()):
            return rewards
        lowest = torch.where(broken, torch.inf, rewards).amin(dim=1, keepdim=True)
        fallback = torch.zeros_like(rewards) if previous is None else previous
        return torch.where(broken, torch.where(lowest == torch.inf, fallback, lowest.expand_as(rewards)), rewards)
