"""Launcher of ``csrc/cuda/unique.cu``: equal rows by a hash table, verified."""

from __future__ import annotations

from torch import Tensor

from fastguide.cuda import _module

MOST_ROWS = 2**31 - 2


def unique(
    rows: Tensor,
    representatives: Tensor,
    inverse: Tensor,
    counts: Tensor,
    distinct: Tensor,
    hash_mask: int = 2**64 - 1,
) -> None:
    """Name equal rows without reading from the device.

    Args:
        rows: ``[N, ...]``, contiguous and not empty, N at most `MOST_ROWS`.
        representatives, inverse, counts: int64 ``[N]``; of the first and the last, ``distinct`` elements are set and the
            rest is 0.
        distinct: int64 ``[1]``, the number of distinct rows.
        hash_mask: bits of the hash that are used; fewer cost time and change no result.
    """
    cuda, count = _module.module(), len(rows)
    workspace = _module.workspace(cuda.unique_bytes(count), rows.device)
    _module.call(
        cuda.unique,
        rows.device,
        rows.data_ptr(),
        count,
        rows.nbytes // count,
        hash_mask,
        representatives.data_ptr(),
        inverse.data_ptr(),
        counts.data_ptr(),
        distinct.data_ptr(),
        workspace.data_ptr(),
    )
