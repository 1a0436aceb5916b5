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

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastguide import ops
from fastguide.guidance.gradients.proposal import GradientProposal
from fastguide.guidance.protocol import Driver, Guidance, State, guidance_at, is_number
from fastguide.guidance.wrapped import Wrapped
from fastguide.ops._checks import count
from fastguide.processes.gaussian import GaussianProcess
from fastguide.reference.log import log
from fastguide.reference.philox import Stream, counter_word, philox
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
        start = _move(run, process, seeds, self)
        moved = run.again(_Started(self.guidance, log_ratio=start.log_ratio), seeds)
        moved.x = start.x
        result = moved.sample()
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


@dataclass(frozen=True)
class _Start:
    x: Tensor
    log_ratio: Tensor
    acceptance: float


def _move(run: Run, process: GaussianProcess, seeds: Tensor, settings: PCN) -> _Start:
    """Return the states ``[G·N, *shape]`` and their ``log p_T / q``."""
    groups, particles, alpha = run.steering.groups, run.steering.particles, settings.alpha
    drift = GradientProposal(alpha, "through") if settings.langevin else None
    spread, left = process.prior_std, math.sqrt(1.0 - settings.scale**2)
    # Steps that key no other draw of a run.
    first = 2 * process.steps + 3
    x = run.x
    values, slope = run.first_values(x, drift)
    drawn = ops.select(values / alpha, seed=seeds, step=first, order="slots", degenerate="keep")
    slot = drawn.ancestors.to(torch.int64)
    values = values.gather(1, slot)
    rows = (slot + torch.arange(groups, device=x.device)[:, None] * particles).view(-1)
    x, slope = x[rows], None if slope is None else slope[rows]
    taken = 0
    for move in range(settings.moves):
        proposed = ops.gaussian_step(
            x, x if slope is None else slope, x_coefficient=left,
            prediction_coefficient=0.0 if slope is None else (1.0 - left) * spread**2 / alpha,
            sigma=settings.scale * spread, seed=seeds, step=first + 1 + move,
        )[:, 0]  # fmt: skip
        theirs, their_slope = run.first_values(proposed, drift)
        gain = (theirs - values) / alpha
        if slope is not None and their_slope is not None:
            ratio = _log_ratio(x, proposed, slope / alpha, their_slope / alpha, left, spread)
            gain = gain + ratio.view(groups, particles)
        accepted = _log_uniforms(seeds, particles, first + 1 + move) < gain
        values = torch.where(accepted, theirs, values)
        taken += int(accepted.sum())
        accepted = accepted.view(-1, *(1,) * len(process.shape))
        x = torch.where(accepted, proposed, x)
        slope = None if slope is None or their_slope is None else torch.where(accepted, their_slope, slope)
    log_ratio = drawn.log_mean_weight[:, None] - values / alpha
    return _Start(x, log_ratio, taken / (settings.moves * len(x)))


def _log_ratio(x: Tensor, y: Tensor, at_x: Tensor, at_y: Tensor, left: float, spread: float) -> Tensor:
    """Return float64 ``[n]``, ``log p(y) q(y → x) − log p(x) q(x → y)`` with p the prior, q the drifting proposal.

    What depends on the states alone cancels, as q without drift is reversible under p; ``1 / (1 + a)`` is ``(1 − a) / scale²``.
    """
    x, y, at_x, at_y = (tensor.double().flatten(1) for tensor in (x, y, at_x, at_y))
    cross = (at_y * (x - left * y) - at_x * (y - left * x)).sum(1)
    squares = (at_x.square() - at_y.square()).sum(1)
    return cross / (1.0 + left) + squares * spread**2 * (1.0 - left) / (2.0 * (1.0 + left))


def _log_uniforms(seeds: Tensor, particles: int, step: int) -> Tensor:
    """Return ``[G, N]`` float64 logarithms of uniforms."""
    slots = torch.arange(particles, device=seeds.device)
    low, high, _, _ = philox(seeds[:, None], 0, slots, 0, counter_word(step, Stream.ACCEPT))
    return log((((high >> 11) << 32 | low).double() + 0.5) * 2.0**-53)
