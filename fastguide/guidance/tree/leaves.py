"""Samples from the leaves of search trees, with their trajectories and genealogy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastguide import ops
from fastguide.ancestry import Ancestry
from fastguide.reference.log import log

if TYPE_CHECKING:
    from fastguide.guidance.tree.search import Search


def draw_leaves(search: Search, particles: int) -> Tensor:
    """Return leaves ``[G, N]``, drawn as by N descents ∝ ``n_c exp(v_c / alpha)``; at alpha = 0 the best, best first.

    Values cancel along a path: a leaf has probability ∝ ``exp(r / alpha)`` times the shares ``n_c / Σ n_c`` of its ancestors
    among the draws of their parents. All N are drawn from it at once, systematically, with less noise than N descents.
    """
    alpha, leaves = search.settings.alpha, search.levels[-1]
    rewards, group = leaves.value[: leaves.size], leaves.group[: leaves.size]
    share = torch.zeros(search.groups, dtype=torch.float64, device=rewards.device)
    for above, below in zip(search.levels[:-1], search.levels[1:], strict=True):
        parent = below.parent[: below.size]
        share = share[parent] + log(below.count[: below.size].double()) - log(above.draws[parent].double())
    slots, seeds = torch.arange(particles, device=rewards.device), search.run.steering.seeds
    rows = []
    for g in range(search.groups):
        own = (group == g).nonzero()[:, 0]
        best = rewards[own].max()
        if alpha == 0 or bool(best == -torch.inf):
            order = rewards[own].argsort(descending=True, stable=True)
            rows.append(own[order[slots % len(own)]])
            continue
        scores = share[own] + (rewards[own] - best) / alpha
        drawn = ops.select(scores, particles, seed=seeds[g : g + 1], step=len(search.levels)).ancestors
        rows.append(own[drawn.to(torch.int64)])
    return torch.stack(rows)


def trace_back(search: Search, leaves: Tensor) -> tuple[Tensor, Ancestry]:
    """Return the trajectories ``[T + 1, G·N, *shape]`` of leaves ``[G, N]``, and their genealogy.

    A sample's parent in a step is the first sample of its group with the same node before the step.
    """
    groups, particles = leaves.shape
    ancestry = Ancestry(groups, particles)
    slots = torch.arange(particles, device=leaves.device).repeat(groups)
    nodes, states, parents = leaves.flatten(), [], []
    for level in reversed(search.levels[1:]):
        states.append(level.x[nodes])
        kinds, which = torch.unique(nodes, return_inverse=True)
        first = torch.full_like(kinds, particles).scatter_reduce_(0, which, slots, "amin")
        parents.append(first[which].view(groups, particles))
        nodes = level.parent[nodes]
    for parent in reversed(parents[1:]):
        ancestry.append(parent)
    return torch.stack(states[::-1]), ancestry
