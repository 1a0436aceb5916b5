"""``move`` in plain torch: an index of each tensor, group by group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

OK, INVALID_VALUE, OUT_OF_RANGE = 0, 1, 3


def check_ancestors(ancestors: Tensor, rows: int, in_place: bool) -> tuple[int, int]:
    """Return a status code and the first offending flat index of ``ancestors`` ``[G, K]``, as the kernel does."""
    outside = ((ancestors < 0) | (ancestors >= rows)).flatten()
    displaced = torch.zeros_like(outside)
    if in_place and not bool(outside.any()):
        displaced = (ancestors.long().gather(1, ancestors.long()) != ancestors).flatten()
    for code, bad in ((OUT_OF_RANGE, outside), (INVALID_VALUE, displaced)):
        if bool(bad.any()):
            return code, int(bad.nonzero()[0])
    return OK, -1


def move(tensors: Sequence[Tensor], ancestors: Tensor, rows: int) -> list[Tensor]:
    """Return each tensor ``[G * rows, ...]`` by ancestors ``[G, K]``, each in ``[0, rows)``."""
    first = torch.arange(len(ancestors), device=ancestors.device)[:, None] * rows
    flat = (ancestors.long() + first).flatten()
    return [t.index_select(0, flat) for t in tensors]
