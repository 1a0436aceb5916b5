"""The status that launchers of GPU kernels write."""

from __future__ import annotations

import torch
from torch import Tensor

from fastguide.ops import _native
from tests.cuda import device

NEVER = 2**63 - 1


def new_status() -> Tensor:
    return torch.full((5,), NEVER, device=device.DEVICE)


def read_status(status: Tensor) -> tuple[int, int]:
    """Return the gravest code and its index."""
    words = status.tolist()
    for code in (_native.INVALID_VALUE, _native.OUT_OF_RANGE, _native.DEGENERATE):
        if words[code] != NEVER:
            return code, words[code]
    return _native.OK, -1
