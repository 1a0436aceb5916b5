"""Which known child a descent goes on to, and what a node is worth by its children."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastguide import ops
from fastguide.guidance.tree.level import NONE
from fastguide.reference.log import log

if TYPE_CHECKING:
    from fastguide.guidance.tree.search import Search


def choose(
    search: Search, depth: int, nodes: Tensor, children: Tensor, which: Tensor, turn: Tensor, seeds: Tensor
) -> Tensor:
    """Return the child, of ``children[which]``, that each descent goes on to.

    Args:
        search: the trees.
        depth: of the nodes.
        nodes: ``[U]``. children: ``[U, K]``, those of each.
        which: ``[n]`` the node of each descent. turn: ``[n]`` its number among those at its node. seeds: ``[n]``.
    """
    if search.settings.policy == "uct":
        return _uct(search, depth, nodes, children, which, turn)
    scores, _ = log_weights(search, depth + 1, children)
    rule = "multinomial" if search.settings.alpha > 0 else "argmax"
    drawn = ops.select(scores[which], 1, rule=rule, seed=seeds, step=depth, degenerate="keep")
    return children[which].gather(1, drawn.ancestors.to(torch.int64))[:, 0]


def _uct(search: Search, depth: int, nodes: Tensor, children: Tensor, which: Tensor, turn: Tensor) -> Tensor:
    below, group = search.levels[depth + 1], search.levels[depth].group[nodes][:, None]
    span = search.highest[group] - search.lowest[group]
    worth = (below.value[children] - search.lowest[group]) / torch.where(span > 0, span, 1.0)
    worth = torch.where(children == NONE, -torch.inf, worth)
    visits = torch.where(children == NONE, 0, below.visits[children]).double()
    # Descents of one batch do not know each other's rewards: each counts as a visit of what it chose.
    chosen = torch.empty_like(which)
    for now in range(int(turn.max()) + 1):
        own = turn == now
        rows = which[own]
        total = log(visits[rows].sum(1, keepdim=True))
        bonus = (total / visits[rows].clamp(min=1.0)).sqrt()
        best = (worth[rows] + search.settings.exploration * bonus).argmax(1)
        visits[rows, best] += 1
        chosen[own] = children[rows, best]
    return chosen


def back_up(search: Search, depth: int, nodes: Tensor) -> None:
    """Give nodes the soft value of their children: ``alpha · log(Σ n_c exp(v_c / alpha) / Σ n_c)``."""
    above, alpha = search.levels[depth], search.settings.alpha
    children = above.children_of(nodes)
    scores, best = log_weights(search, depth + 1, children)
    if alpha == 0:
        above.value[nodes] = scores.amax(1) + best[:, 0]
        return
    log_mean = ops.select(scores, 1, rule="argmax", degenerate="keep").log_mean_weight
    share = torch.full_like(log_mean, children.shape[1]) / above.draws[nodes]
    above.value[nodes] = best[:, 0] + alpha * (log_mean + log(share))


def log_weights(search: Search, depth: int, children: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``log n_c + (v_c − v) / alpha`` of children ``[U, K]``, v the largest value of a row, and v ``[U, 1]``.

    At alpha = 0: ``v_c − v``.
    """
    below, alpha = search.levels[depth], search.settings.alpha
    values = torch.where(children == NONE, -torch.inf, below.value[children])
    best = values.amax(1, keepdim=True)
    best = torch.where(best == -torch.inf, 0.0, best)
    if alpha == 0:
        return values - best, best
    counts = torch.where(children == NONE, 1, below.count[children])
    return log(counts.double()) + (values - best) / alpha, best
