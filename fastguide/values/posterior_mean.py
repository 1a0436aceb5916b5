"""The reward of the predicted clean sample.

The cheapest look-ahead: ``v_t(x_t) ≈ r(x̂0(x_t))`` with x̂0 the denoiser's most probable token at each masked position, as in
the reference code of the tutorial (2501.09685). It costs one reward row a distinct x̂0, and no denoiser row, because the same
prediction serves the next proposal. It is biased as an estimate of the value; SMC and nested SMC are exact all the same,
because their weights telescope.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fastguide.states import States


@dataclass(frozen=True)
class PosteriorMean:
    """``v_t(x_t) = r(x̂0(x_t))``.

    Args:
        decode: how x̂0 is read off the prediction; ``"argmax"``, the most probable token (the lowest id on ties).
    """

    decode: str = "argmax"

    reads_output: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.decode != "argmax":
            raise ValueError(f"decode: unknown {self.decode!r}; choose 'argmax'")

    def look(self, states: States) -> Tensor:
        """Return the clean samples that the denoiser predicts."""
        return states.estimate()

    def values(self, looked: Tensor, rewards: Callable[[Tensor], Tensor], alpha: float) -> Tensor:
        """Return their rewards."""
        return rewards(looked)
