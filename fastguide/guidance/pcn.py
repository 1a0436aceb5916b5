r"""First states moved to where their value is high, by preconditioned Crank–Nicolson, before any guidance begins.

The soft-optimal sampler starts at ``π_T ∝ p_T exp(v_T / alpha)`` and not at the prior ``p_T = N(0, s²)``. N states of the
prior are resampled by ``exp(v_T / alpha)``, and each takes ``moves`` steps of a Markov chain that leaves ``π_T`` as it is,

    x' = sqrt(1 − scale²) x + scale · s · z,     taken with probability min(1, exp((v_T(x') − v_T(x)) / alpha)),

whose acceptance does not fall as states get larger. With ``langevin=True`` they drift to where the value rises,
``x' = a x + (1 − a) s² ∇v_T(x) / alpha + scale · s · z`` with ``a = sqrt(1 − scale²)``, and the acceptance takes the ratio of
the two proposals: the preconditioned Crank–Nicolson Langevin proposal, MALA for a Gaussian prior.

The guidance then runs on from there. Where it weighs, its first weights take ``Ẑ_T exp(−v_T / alpha)``, with ``Ẑ_T`` the mean
weight of that resampling: the law of the states against the prior. So the weighted samples stay consistent and ``E[Ẑ]`` exact
for any number of moves, and for any values.

Use it where the first noise decides much: few steps, little noise in a step (``ddim`` at a small ``eta``, ``edm``), rare
rewards. At high noise the value hardly depends on the state, and the moves are for nothing.

Sources: Cotter, Roberts, Stuart and White, 1202.0709; Del Moral, Doucet and Jasra 2006 (resample and move); Yoon et al.,
2506.01320 (initial particles for SMC).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import Tensor

from fastguide.guidance.crank_nicolson import moved
from fastguide.guidance.protocol import Driver, Guidance, State, guidance_at, is_number, phase_at
from fastguide.guidance.wrapped import Wrapped
from fastguide.ops._checks import count
from fastguide.processes.gaussian import GaussianProcess
from fastguide.strength import AutoAlpha

if TYPE_CHECKING:
    from fastguide.result import Result
    from fastguide.run import Run


@dataclass(frozen=True)
class PCN(Wrapped):
    """Move the first states of a `GaussianProcess`, then guide.

    ``result.provenance["pcn_acceptance"]`` is the share of moves that were taken; 0.2 to 0.5 serves best.

    Args:
        guidance: what runs from there, `fastguide.SMC` or the like; its ``alpha`` must be a number above 0.
        moves: steps of the chain; each costs a row of the denoiser and a value for every particle.
        scale: how far a step goes, in (0, 1]; 1 draws afresh from the prior.
        langevin: drift along the gradient of the reward at the predicted clean sample, through the denoiser; it costs one more
            row of both, with gradients, a step and particle.
    """

    guidance: Guidance
    moves: int = 8
    scale: float = 0.3
    langevin: bool = False

    def __post_init__(self) -> None:
        if (
            isinstance(self.guidance, type)
            or not isinstance(self.guidance, Guidance)
            or isinstance(self.guidance, Driver)
        ):
            raise TypeError(f"guidance: expected fg.SMC(...) or the like, got {self.guidance!r}")
        if isinstance(self.guidance.alpha, AutoAlpha) or self.guidance.alpha == 0:
            raise ValueError(f"guidance: PCN needs an alpha that is a number above 0, got {self.guidance!r}")
        object.__setattr__(self, "moves", count("moves", self.moves))
        if not (is_number(self.scale) and 0.0 < self.scale <= 1.0):
            raise ValueError(f"scale: expected a number in (0, 1], got {self.scale!r}")

    def at(self, step: int) -> Guidance:
        """Return the guidance that takes step ``step``."""
        return guidance_at(self.guidance, step)

    def phase(self, step: int) -> int:
        """Return the phase of the guidance that step ``step`` belongs to."""
        return phase_at(self.guidance, step)

    def drive(self, run: Run) -> Result:
        """Move the first states, and run the guidance from them."""
        process: object = run.scene.process
        bound, seeds = run.scene.bound, run.steering.seeds
        if not isinstance(process, GaussianProcess):
            raise TypeError(
                f"process: PCN moves the first states of a GaussianProcess, not of {type(process).__name__}"
            )
        if getattr(bound, "given", None) is not None:
            raise ValueError("x_init: PCN moves states of the prior; leave it out")
        if run.spending is not None:
            rows = (2 if self.langevin else 1) * (self.moves + 1) * len(run.x)
            run.spending.require(rows + len(run.x) * process.steps, rows + len(run.x) * self.branch)
        start = moved(run, process, seeds, self)
        following = run.again(_Started(self.guidance, log_ratio=start.log_ratio), seeds)
        following.x = start.x
        result = following.sample()
        acceptance = {"pcn_acceptance": start.acceptance}
        return replace(result, guidance=self, provenance={**result.provenance, **acceptance})


@dataclass(frozen=True)
class _Started(PCN):
    """From states that are moved already, of ``log p_T / q`` ``[G, N]``."""

    log_ratio: Tensor | None = None

    def begin(self, values: Tensor) -> State:
        state = self.guidance.begin(values)
        if not self.estimates_normalizer:
            return state
        assert self.log_ratio is not None
        return state._replace(log_weights=state.log_weights + self.log_ratio)
