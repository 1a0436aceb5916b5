r"""Twisted sequential Monte Carlo: proposals guided by a gradient of the value, and the weights that make up for it.

`SMC` whose particles are drawn where the reward rises. Each weight takes ``p/q`` of its child, p the model's own step and q the
guided one, so that the target and its normaliser stay exact, however poor the gradient is. A good one raises the effective
sample size, and fewer particles do; a poor or a too large one lowers it (``scale`` below 1, ``clip``).

Gradients, their formulas and costs: `fastguide.guidance.gradients.tokens` and `fastguide.guidance.gradients.real`.

Source: Wu et al., 2306.17775.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastguide.guidance.gradients import Estimator, GradientProposal, check_gradient
from fastguide.guidance.smc import SMC


@dataclass(frozen=True)
class TDS(SMC):
    """Resample as `SMC` does, with guided proposals.

    Args:
        gradient: of tokens ``"decoded"``, ``"exact"`` or ``"input"``; of real states ``"through"`` or ``"decoded"``; or a
            function of `fastguide.states.States`. None is ``"decoded"`` of tokens and ``"through"`` of real states.
        scale: factor of the shift, or a function of the noise level that gives it.
        clip: longest gradient of a state; None leaves all as they are.

    The other settings are those of `SMC`.
    """

    gradient: str | Estimator | None = None
    scale: float | Callable[[float], float] = 1.0
    clip: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_gradient(self.gradient, self.scale, self.clip)

    @property
    def proposal(self) -> GradientProposal:
        """What draws the children."""
        return GradientProposal(self.alpha, self.gradient, self.scale, self.clip)
