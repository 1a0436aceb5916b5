"""What a population of samples is worth: its diversity, its effective size, its Pareto front."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fastguide import ops

PAIRS = 2**16
"""Pairs that a mean distance is estimated from; all of them where there are fewer."""


@dataclass(frozen=True)
class Diversity:
    """How different the samples of a population are.

    Attributes:
        samples: those of nonzero weight.
        distinct: how many of them differ from all others.
        pairwise_distance: mean distance of two samples drawn independently by their weights, the same one twice included:
            differing positions of tokens (Hamming), the Euclidean distance of real states. nan for none.
        unique_ancestors: particles of the first step with a descendant among the samples.
    """

    samples: int
    distinct: int
    pairwise_distance: float
    unique_ancestors: int


def diversity(samples: Tensor, log_weights: Tensor, unique_ancestors: int, seed: int = 0) -> Diversity:
    """Return the `Diversity` of weighted samples ``[n, *shape]``.

    The distance is a mean over at most 65,536 pairs drawn by weight, the same for the same seed.
    """
    alive = log_weights > -torch.inf
    rows, weights = samples[alive], log_weights[alive]
    if not len(rows):
        return Diversity(0, 0, math.nan, unique_ancestors)
    distinct = len(ops.unique(rows).representatives)
    left, right = (ops.select(weights, PAIRS, rule="multinomial", seed=seed, step=k).ancestors.long() for k in (0, 1))
    # A fair pairing: draws of one call come sorted.
    order = ops.select(torch.zeros(PAIRS, dtype=torch.float64), PAIRS, rule="gumbel_topk", seed=seed, step=2)
    right = right[order.ancestors.long()]
    distances = [_distance(rows[a], rows[b]) for a, b in zip(_parts(left), _parts(right), strict=True)]
    return Diversity(len(rows), distinct, float(torch.cat(distances).mean()), unique_ancestors)


def _parts(indices: Tensor) -> tuple[Tensor, ...]:
    return torch.split(indices, 4096)


def _distance(a: Tensor, b: Tensor) -> Tensor:
    if a.is_floating_point():
        return ((a - b).flatten(1).double() ** 2).sum(1).sqrt()
    return (a != b).flatten(1).sum(1).double()


def pareto_front(values: Tensor) -> Tensor:
    """Return the indices ``[k]`` of the rows that no other row dominates, best first component first.

    A row dominates another when it is at least as large in every column and larger in one; of equal rows all are kept.

    Args:
        values: ``[n, objectives]``, larger is better; rows with −inf or nan belong to no front.
    """
    if values.ndim != 2:
        raise ValueError(f"values: expected shape [n, objectives], got {list(values.shape)}")
    candidates = torch.isfinite(values).all(1).nonzero()[:, 0]
    # In falling lexicographic order only earlier rows can dominate a row, so the first of those left is on the front.
    for column in reversed(range(values.shape[1])):
        candidates = candidates[torch.argsort(values[candidates, column], descending=True, stable=True)]
    front = []
    while len(candidates):
        best = values[candidates[0]]
        front.append(candidates[0])
        rest = values[candidates[1:]]
        dominated = (best >= rest).all(1) & (best > rest).any(1)
        candidates = candidates[1:][~dominated]
    return torch.stack(front) if front else candidates
