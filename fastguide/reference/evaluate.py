"""The specification of `fastguide.ops.evaluate` in plain torch: every sum runs in the order that is written here.

Each function takes states ``[N, columns]`` and returns float32 ``[N]``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastguide.reference.activation import ACTIVATIONS


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return ``bias + weight . x``, in float64."""
    return (bias.double() + _sum_columns(weight.double() * x.double())).float()


def diagonal_quadratic(x: Tensor, diagonal: Tensor, center: Tensor, offset: Tensor) -> Tensor:
    """Return ``offset + 1/2 sum_d diagonal_d (x_d - center_d)^2``, in float64."""
    y = x.double() - center.double()
    return (_sum_columns(diagonal.double() * (y * y)) * 0.5 + offset.double()).float()


def _sum_columns(terms: Tensor) -> Tensor:
    """Sum ``[N, D]`` over d in eight partial sums, of the columns d mod 8, which are then added in halves."""
    sums = torch.zeros(len(terms), 8, dtype=terms.dtype, device=terms.device)
    for part in torch.split(terms, 8, dim=1):
        sums[:, : part.shape[1]] += part
    for half in (4, 2, 1):
        sums = sums[:, :half] + sums[:, half:]
    return sums[:, 0]


def quadratic(x: Tensor, matrix: Tensor, center: Tensor, offset: Tensor) -> Tensor:
    """Return ``offset + 1/2 y . (A y)`` with ``y = x - center``: y and A y in float32, their product in float64."""
    y = x - center
    product = _layer(y, matrix, torch.zeros_like(center))
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for d in range(x.shape[1]):
        total = total + y[:, d].double() * product[:, d].double()
    return (total * 0.5 + offset.double()).float()


def mlp(x: Tensor, layers: Sequence[Tensor], activation: str) -> Tensor:
    """Return the one output of a network in float32; ``layers`` are weight ``[out, in]``, bias ``[out]``, and so on."""
    for i in range(0, len(layers), 2):
        x = _layer(x, layers[i], layers[i + 1])
        if i + 2 < len(layers):
            x = ACTIVATIONS[activation](x)
    return x[:, 0]


def _layer(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return ``bias + x weight^T`` in float32, one input after the other."""
    y = bias.expand(len(x), -1)
    for d in range(x.shape[1]):
        y = y + x[:, d, None] * weight[:, d]
    return y


def position_weights(x: Tensor, scores: Tensor) -> Tensor:
    """Return the largest sum of scores ``[W, V]`` over the windows of W tokens, in float64."""
    best = torch.full((len(x),), -torch.inf, dtype=torch.float64, device=x.device)
    for start in range(x.shape[1] - len(scores) + 1):
        total = torch.zeros_like(best)
        for k in range(len(scores)):
            total = total + scores[k].double()[x[:, start + k].long()]
        best = torch.maximum(best, total)
    return best.float()


def motif_count(x: Tensor, motifs: Sequence[Sequence[int]]) -> Tensor:
    """Return how often motifs occur, overlapping ones counted each."""
    total = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    for motif in motifs:
        for start in range(x.shape[1] - len(motif) + 1):
            total += (x[:, start : start + len(motif)] == torch.tensor(motif, device=x.device)).all(1)
    return total.float()


def potts(x: Tensor, fields: Tensor, couplings: Tensor) -> Tensor:
    """Return ``sum_i (h_i(x_i) + sum_{j > i} J_ij(x_i, x_j))``: the sum over j in float32, the one over i in float64."""
    x = x.long()
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for i in range(x.shape[1]):
        row = fields[i][x[:, i]]
        for j in range(i + 1, x.shape[1]):
            row = row + couplings[i, j][x[:, i], x[:, j]]
        total = total + row.double()
    return total.float()


def first_outside(x: Tensor, vocab: int) -> int | None:
    """Return the flat index of the first token outside ``0 .. vocab - 1``, or None."""
    outside = ((x < 0) | (x.long() >= vocab)).flatten()
    return int(outside.to(torch.uint8).argmax()) if bool(outside.any()) else None
