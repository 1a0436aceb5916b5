"""The Markov chain of `fastguide.PCN`: resampled first states, moved by preconditioned Crank–Nicolson steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastguide import ops
from fastguide.guidance.gradients.proposal import GradientProposal
from fastguide.guidance.rounds import log_uniforms
from fastguide.processes.gaussian import GaussianProcess

if TYPE_CHECKING:
    from fastguide.guidance.pcn import PCN
    from fastguide.run import Run


@dataclass(frozen=True)
class Start:
    """States ``[G·N, *shape]``, ``log p_T / q`` ``[G, N]`` of their law q, and the share of moves that were taken."""

    x: Tensor
    log_ratio: Tensor
    acceptance: float


def moved(run: Run, process: GaussianProcess, seeds: Tensor, settings: PCN) -> Start:
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
            ratio = log_ratio(x, proposed, slope / alpha, their_slope / alpha, left, spread)
            gain = gain + ratio.view(groups, particles)
        accepted = log_uniforms(seeds, particles, first + 1 + move) < gain
        values = torch.where(accepted, theirs, values)
        taken += int(accepted.sum())
        accepted = accepted.view(-1, *(1,) * len(process.shape))
        x = torch.where(accepted, proposed, x)
        slope = None if slope is None or their_slope is None else torch.where(accepted, their_slope, slope)
    return Start(x, drawn.log_mean_weight[:, None] - values / alpha, taken / (settings.moves * len(x)))


def log_ratio(x: Tensor, y: Tensor, at_x: Tensor, at_y: Tensor, left: float, spread: float) -> Tensor:
    """Return float64 ``[n]``, ``log p(y) q(y → x) − log p(x) q(x → y)`` with p the prior, q the drifting proposal.

    What depends on the states alone cancels, as q without drift is reversible under p; ``1 / (1 + a)`` is ``(1 − a) / scale²``.
    """
    x, y, at_x, at_y = (tensor.double().flatten(1) for tensor in (x, y, at_x, at_y))
    cross = (at_y * (x - left * y) - at_x * (y - left * x)).sum(1)
    squares = (at_x.square() - at_y.square()).sum(1)
    return cross / (1.0 + left) + squares * spread**2 * (1.0 - left) / (2.0 * (1.0 + left))
