r"""Iterative refinement: noise the samples again, part of the way, and run the guidance from there, round after round.

What becomes of the new samples x' of a round beside the old ones x:

- ``"always"``: they take the place of the old ones, drawn by their weights.
- ``"elites"``: each group keeps the N highest rewards of both: a search, whose samples follow no law.
- ``"metropolis"``: x' takes the place of x, each on its own, with probability ``min(1, exp((r(x') − r(x)) / alpha))``.

Metropolis leaves ``p · exp(r / alpha)`` invariant where noising and the pretrained model's way back are reversible under p,
that is, where its last steps are the exact posterior of the noise: only the rewards are then left in the ratio. With an exact
denoiser it holds for `MaskedProcess` with ``reveal="count"``, one position a step and random order; elsewhere up to the error
of the steps, which falls as they become more.

Particles taken up on the way start with equal weights, as noised samples of the target follow the target of their level:
rounds of `SMC` keep it where values are exact. The errors of estimated values add up from round to round, and `BestOfN`, which
reads none on the way, tilts anew in each: both then optimise rather than sample.

Sources: 2502.14944 for the rounds; Metropolis et al., 1953, and Hastings, 1970, for the acceptance.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from fastguide.guidance.best_of_n import BestOfN
from fastguide.guidance.protocol import Driver, Guidance, is_number, seeds_of_pass
from fastguide.guidance.rounds import ACCEPTANCES, accepted, designs, unweighted
from fastguide.guidance.wrapped import Wrapped
from fastguide.processes.protocol import Renoising
from fastguide.strength import AutoAlpha

if TYPE_CHECKING:
    from fastguide.result import Result
    from fastguide.run import Run


@dataclass(frozen=True)
class Refine(Wrapped):
    """Refine samples by rounds of noise and guidance; those of the last round are unweighted.

    They start from ``x_init`` where it is whole (of tokens: no mask), otherwise from a pass of the guidance. What is
    ``frozen``, or given beside masks, stays. ``result.trace`` has the steps of all rounds. A budget ends the rounds when what
    is left does not pay for one without guidance.

    Args:
        guidance: what draws the new samples, `BestOfN` where ``accept="metropolis"``.
        rounds: how often the samples are noised, at least 1.
        level: share of the steps that a round takes, in (0, 1].
        accept: ``"always"``, ``"metropolis"`` or ``"elites"``.
    """

    guidance: Guidance = field(default_factory=BestOfN)
    rounds: int = 10
    level: float = 0.3
    accept: str = "always"

    consistent = False
    estimates_normalizer = False

    def __post_init__(self) -> None:
        inner = self.guidance
        if isinstance(inner, (type, Driver)) or not isinstance(inner, Guidance) or hasattr(inner, "at"):
            raise TypeError(f"guidance: expected fg.SVDD(...) or the like, not scheduled, not iterated, got {inner!r}")
        if getattr(inner, "alphas", ()) or getattr(inner, "target_ess", None) or isinstance(inner.alpha, AutoAlpha):
            raise ValueError(f"guidance: {inner!r}: give one number as alpha, without tempering")
        if isinstance(self.rounds, bool) or not isinstance(self.rounds, int) or self.rounds < 1:
            raise ValueError(f"rounds: expected a whole number of at least 1, got {self.rounds!r}")
        if not is_number(self.level) or not 0.0 < self.level <= 1.0:
            raise ValueError(f"level: expected a share of the steps in (0, 1], got {self.level!r}")
        if self.accept not in ACCEPTANCES:
            raise ValueError(f"accept: unknown {self.accept!r}; choose one of {', '.join(ACCEPTANCES)}")
        if self.accept == "metropolis" and not (isinstance(inner, BestOfN) and inner.alpha > 0):
            raise ValueError(f'guidance: accept="metropolis" needs fg.BestOfN(alpha) with alpha > 0, got {inner!r}')

    def drive(self, run: Run) -> Result:
        """Run the rounds."""
        if not isinstance(run.scene.bound, Renoising):
            raise TypeError(f"process: Refine cannot noise samples of {type(run.scene.process).__name__} again")
        seeds, total = run.steering.seeds, run.scene.process.steps
        first = total - max(1, round(self.level * total))
        results: list[Result] = []
        x0 = designs(run)
        if x0 is None:
            results.append(run.sample())
            x0, rewards = unweighted(self.accept, results[0], total)
        else:
            if run.constraints.frozen is None:
                run.constraints = run.constraints._replace(x_init=None)
            if run.spending is not None:
                run.first = first
                denoiser_rows, reward_rows = run.rows_unguided
                run.spending.require(denoiser_rows, len(x0) + reward_rows)
            rewards = run.scene.problems.rewards(x0, run.problem)
        for number in range(1, self.rounds + 1):
            following = run.again(self, seeds_of_pass(seeds, number))
            following.first = first
            if results and not following.affords_pass():
                break
            run, bound = following, following.scene.bound
            assert isinstance(bound, Renoising)
            run.x = bound.renoise(x0, step=first, seeds=run.steering.seeds)
            results.append(run.sample())
            x0, rewards = accepted(self.accept, (x0, rewards), results[-1], total)
        return replace(
            results[-1],
            samples=x0,
            rewards=rewards,
            log_weights=torch.where(rewards == -torch.inf, -torch.inf, 0.0).double(),
            trace=type(results[-1].trace)(step for r in results for step in r.trace),
            seeds=seeds,
            seconds=sum(r.seconds for r in results),
            _replay=None,
        )
