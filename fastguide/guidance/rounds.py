"""The rounds of `fastguide.Refine`: the samples that the first starts from, and those that each leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastguide import ops
from fastguide.processes.protocol import Renoising, expand_init
from fastguide.reference.log import log
from fastguide.reference.philox import Stream, counter_word, philox

if TYPE_CHECKING:
    from fastguide.result import Result
    from fastguide.run import Run

ACCEPTANCES = ("always", "metropolis", "elites")
Samples = tuple[Tensor, Tensor]
"""Samples ``[G·N, *shape]`` and their rewards ``[G·N]``."""


def designs(run: Run) -> Tensor | None:
    """Return ``x_init`` for every particle where it is whole, None where there is something to draw first."""
    s, bound = run.steering, run.scene.bound
    assert isinstance(bound, Renoising)
    x_init = expand_init(run.constraints.x_init, s.groups, s.particles, run.x.ndim - 1)
    if x_init is None:
        return None
    x0 = x_init.to(run.device).expand(run.x.shape)
    group = torch.arange(s.groups, device=run.device).repeat_interleave(s.particles)
    return x0 if bound.is_whole(x0, group=group) else None


def unweighted(accept: str, result: Result, step: int) -> Samples:
    """Return the samples of a pass: drawn within each group by their weights, or as they are for Metropolis."""
    if accept == "metropolis":
        return result.samples, result.rewards
    weights = result.log_weights.view(result.groups, -1)
    chosen = ops.select(weights, seed=result.seeds, step=step, degenerate="keep").ancestors
    return _taken(chosen, result.samples, result.rewards)


def accepted(accept: str, old: Samples, result: Result, step: int) -> Samples:
    """Return the samples that a round leaves, from the old ones and the ``result`` of its pass."""
    new = result.samples, result.rewards
    if accept == "metropolis":
        return metropolis(old, new, result.guidance.alpha, result.seeds)
    if accept == "elites":
        return elites(old, new, result.groups)
    return unweighted(accept, result, step)


def metropolis(old: Samples, new: Samples, alpha: float, seeds: Tensor) -> Samples:
    """Return, of samples and rewards, the new ones with probability ``min(1, exp((r' − r) / alpha))``, each on its own.

    A sample of reward −inf is left for any other, and none is gone to.
    """
    (x0, rewards), (proposed, theirs) = old, new
    gain = torch.where(rewards == -torch.inf, torch.inf, theirs - rewards)
    taken = (log_uniforms(seeds, len(x0) // len(seeds), 0).view(-1) < gain / alpha) & (theirs > -torch.inf)
    return torch.where(taken.view(-1, *(1,) * (x0.ndim - 1)), proposed, x0), torch.where(taken, theirs, rewards)


def log_uniforms(seeds: Tensor, particles: int, step: int) -> Tensor:
    """Return ``[G, N]`` float64 logarithms of uniforms that decide acceptance, keyed by seeds ``[G]``, slot and step."""
    slots = torch.arange(particles, device=seeds.device)
    low, high, _, _ = philox(seeds[:, None], 0, slots, 0, counter_word(step, Stream.ACCEPT))
    return log((((high >> 11) << 32 | low).double() + 0.5) * 2.0**-53)


def elites(old: Samples, new: Samples, groups: int) -> Samples:
    """Return the N samples of highest reward of each group, the old ones first among equals."""
    x0, rewards = (
        torch.cat([a.view(groups, -1, *a.shape[1:]), b.view(groups, -1, *b.shape[1:])], 1)
        for a, b in zip(old, new, strict=True)
    )
    best = rewards.argsort(dim=1, descending=True, stable=True)[:, : len(old[1]) // groups]
    return _taken(best, x0.flatten(0, 1), rewards.view(-1))


def _taken(chosen: Tensor, x0: Tensor, rewards: Tensor) -> Samples:
    """Return the samples, and rewards, that are numbered ``[G, N]`` within their group."""
    first = torch.arange(len(chosen), device=chosen.device)[:, None] * (len(x0) // len(chosen))
    rows = (chosen.to(torch.int64) + first).view(-1)
    return x0[rows], rewards[rows]
