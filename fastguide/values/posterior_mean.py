"""The reward of the predicted clean sample, or of samples drawn from the prediction.

The cheapest look-ahead: ``v_t(x_t) ≈ r(x̂0(x_t))`` with x̂0 the denoiser's most probable token at each masked position, as in
the reference code of the tutorial (2501.09685), or the mean clean sample of a Gaussian process (Tweedie). It costs one reward
row a distinct x̂0, and no denoiser row, because the same prediction serves the next proposal. Drawing m samples of x0 from
that prediction, position by position, and taking ``alpha · log mean exp(r / alpha)`` of their rewards sees the spread of what
is still open, at m times the cost. A reward that knows soft tokens (`fastguide.rewards.Reward.soft`) can also be asked at
their expected one-hot: of a reward that is linear in each position the mean over all draws, for the price of one. All are
biased as estimates of the value; guidance with weights is exact all the same, because its weights telescope.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fastguide.ops._checks import choice, count
from fastguide.states import States
from fastguide.values.draws import soft_mean, state_seeds

DECODES = ("argmax", "sample", "soft")


@dataclass(frozen=True)
class PosteriorMean:
    """``v_t(x_t) = r(x̂0(x_t))``.

    Args:
        decode: how clean samples are read off the prediction: ``"argmax"``, the most probable tokens (the lowest id on ties) or
            the mean of real states; ``"sample"``, drawn from it, each position by itself; ``"soft"``, the probabilities of
            tokens, for rewards with `Reward.soft` (of real states: the mean).
        draws: samples m a state, for ``"sample"``.
        seed: of the draws. Equal states draw alike in a run, whatever group or batch they stand in.
    """

    decode: str = "argmax"
    draws: int = 1
    seed: int = 0

    reads_output: ClassVar[bool] = True
    follows_clock: ClassVar[bool] = True

    def __post_init__(self) -> None:
        choice("decode", self.decode, DECODES)
        object.__setattr__(self, "draws", count("draws", self.draws))
        if self.draws > 1 and self.decode != "sample":
            raise ValueError(f'draws: {self.draws} samples a state need decode="sample"; "{self.decode}" has one')

    def look(self, states: States) -> Tensor:
        """Return clean samples ``[u, *shape]``, ``[u, m, *shape]`` where they are drawn; of soft tokens the rewards ``[u]``."""
        if self.decode == "sample":
            return states.draw_clean(state_seeds(states.x, states.step, self.seed), self.draws)
        if self.decode == "argmax" or states.x.is_floating_point():
            return states.estimate()
        if not hasattr(states.scene.bound, "log_probs"):
            name = type(states.scene.process).__name__
            raise ValueError(f'decode: {name} tells no probabilities of clean tokens; use "argmax" or "sample"')
        return states.soft_rewards(states.estimate_soft())

    def values(self, looked: Tensor, rewards: Callable[[Tensor], Tensor], alpha: float) -> Tensor:
        """Return their rewards, of draws the soft mean."""
        if looked.ndim == 1:
            return looked
        found = rewards(looked)
        return soft_mean(found, alpha) if self.decode == "sample" else found
