"""The reward of the predicted clean sample, or of samples drawn from the prediction.

The cheapest look-ahead: ``v_t(x_t) ≈ r(x̂0(x_t))`` with x̂0 the denoiser's most probable token at each masked position, as in
the reference code of the tutorial (2501.09685), or the mean clean sample of a Gaussian process (Tweedie). It costs one reward
row a distinct x̂0, and no denoiser row, because the same prediction serves the next proposal. Drawing m samples of x0 from
that prediction, position by position, and taking ``alpha · log mean exp(r / alpha)`` of their rewards sees the spread of what
is still open, at m times the cost. Both are biased as estimates of the value; guidance with weights is exact all the same,
because its weights telescope.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fastguide.ops._checks import choice, count
from fastguide.states import States
from fastguide.values.draws import soft_mean, state_seeds

DECODES = ("argmax", "sample")


@dataclass(frozen=True)
class PosteriorMean:
    """``v_t(x_t) = r(x̂0(x_t))``.

    Args:
        decode: how clean samples are read off the prediction: ``"argmax"``, the most probable tokens (the lowest id on ties) or
            the mean of real states; ``"sample"``, drawn from it, each position by itself.
        draws: samples m a state, for ``"sample"``.
        seed: of the draws. Equal states draw alike in a run, whatever group or batch they stand in.
    """

    decode: str = "argmax"
    draws: int = 1
    seed: int = 0

    reads_output: ClassVar[bool] = True

    def __post_init__(self) -> None:
        choice("decode", self.decode, DECODES)
        object.__setattr__(self, "draws", count("draws", self.draws))
        if self.draws > 1 and self.decode == "argmax":
            raise ValueError(f'draws: {self.draws} samples a state need decode="sample"; "argmax" has one')

    def look(self, states: States) -> Tensor:
        """Return the clean samples ``[u, *shape]``, or ``[u, m, *shape]`` where they are drawn."""
        if self.decode == "argmax":
            return states.estimate()
        return states.draw_clean(state_seeds(states.x, states.step, self.seed), self.draws)

    def values(self, looked: Tensor, rewards: Callable[[Tensor], Tensor], alpha: float) -> Tensor:
        """Return their rewards, of draws the soft mean."""
        found = rewards(looked)
        return found if self.decode == "argmax" else soft_mean(found, alpha)
