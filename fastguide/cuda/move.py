"""Launcher of ``csrc/cuda/move.cu``: several state tensors follow their ancestors in two launches."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastguide.cuda import _module


def move(
    sources: Sequence[Tensor], targets: Sequence[Tensor], ancestors: Tensor, rows: int, in_place: bool, status: Tensor
) -> None:
    """Gather rows of contiguous tensors.

    Args:
        sources, targets: ``[groups * rows, ...]`` and ``[groups * draws, ...]``; with ``in_place`` the targets are the
            sources.
        ancestors: ``[groups, draws]`` int32 or int64, contiguous.
        status: int64 ``[5]``, see `fastguide.triton`. An ancestor that is out of range, or in place one that does not keep
            its place: nothing is written then.
    """
    groups, draws = ancestors.shape
    addresses = [s.data_ptr() for s in sources]
    _module.call(
        _module.module().move,
        ancestors.device,
        addresses,
        addresses if in_place else [t.data_ptr() for t in targets],
        [s.nbytes // max(1, groups * rows) for s in sources],
        ancestors.data_ptr(),
        ancestors.dtype is torch.int64,
        groups,
        rows,
        draws,
        in_place,
        status.data_ptr(),
    )
