"""``unique`` in plain torch: a sort of the rows, put back into the order of first occurrence."""

from __future__ import annotations

import torch
from torch import Tensor


def unique(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return representatives ``[U]``, inverse ``[N]`` and counts ``[U]`` of uint8 rows ``[N, B]``, neither 0."""
    _, inverse, counts = torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
    index = torch.arange(len(rows), device=rows.device)
    first = torch.full_like(counts, len(rows)).scatter_reduce(0, inverse, index, "amin")
    order = first.argsort()
    number = torch.empty_like(order)
    number[order] = torch.arange(len(order), device=rows.device)
    return first[order], number[inverse], counts[order]
