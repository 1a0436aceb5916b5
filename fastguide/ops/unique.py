"""Equal rows named once, so that each distinct state is evaluated once.

Against ``torch.unique(dim=0)`` and numpy's void view: no sort, and representatives in the order of first occurrence, so
``rows[representatives]`` keeps the order of the batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastguide import config
from fastguide.ops import _arrays, _checks, _library, _native, _triton
from fastguide.reference import unique as _reference


class Unique(NamedTuple):
    """Which rows are equal.

    Attributes:
        representatives: ``[U]`` int64, the first row of each kind, increasing.
        inverse: ``[N]`` int64, which representative each row equals: ``rows[representatives][inverse]`` are the rows.
        counts: ``[U]`` int64, how many rows are of each kind.
    """

    representatives: Tensor
    inverse: Tensor
    counts: Tensor


def unique(rows: Tensor, *, backend: str | None = None) -> Unique:
    """Find the distinct rows.

    Rows are compared byte for byte: a NaN equals the same NaN, and 0.0 does not equal -0.0. A 128-bit hash finds
    candidates and their bytes decide, so a collision costs time and never an answer.

    Args:
        rows: ``[N, ...]`` of any dtype.
        backend: ``"cpu"``, ``"triton"``, ``"cuda"`` or ``"torch"``; default as :func:`fastguide.config.choose_backend` says.

    Raises:
        ValueError: ``rows`` is a scalar.
    """
    if type(rows) is not Tensor and _arrays.is_foreign(rows):
        return _arrays.in_torch(unique, rows, locals())
    if rows.dim() == 0:
        raise ValueError("rows: expected shape [N, ...], got a scalar")
    launch = _op if torch.compiler.is_compiling() else _launch
    return Unique(*launch(rows, backend))


def _launch(rows: Tensor, backend: str | None) -> tuple[Tensor, Tensor, Tensor]:
    rows = _native.plain(rows)
    count = rows.shape[0]
    if rows.numel() == 0:
        inverse = torch.zeros(count, dtype=torch.int64, device=rows.device)
        return torch.zeros_like(inverse[:1]), inverse, torch.full_like(inverse[:1], count)
    backend = config.choose_backend(rows.device, backend, cuda=True)
    if backend == "torch":
        return _reference.unique(rows.detach().reshape(count, -1).view(torch.uint8))
    representatives = rows.new_empty(count, dtype=torch.int64)
    inverse, counts = torch.empty_like(representatives), torch.empty_like(representatives)
    if backend != "cpu":
        number = torch.empty_like(representatives[:1])
        arguments = rows, representatives, inverse, counts, number
        _triton.launcher("unique", rows, arguments, backend=backend)(*arguments)
        distinct = int(number)
        return representatives[:distinct], inverse, counts[:distinct]
    _checks.on_cpu("rows", rows)
    code, _, distinct = _native.unique(rows, representatives, inverse, counts)
    if code == _native.OUT_OF_RANGE:
        raise ValueError(f"rows: {count} rows are more than the 2^32 - 2 that can be told apart; split them")
    if code != _native.OK:
        raise MemoryError(f"unique: no memory for the table of {count} rows; split them")
    return representatives[:distinct], inverse, counts[:distinct]


def _fake(rows: Tensor, backend: str | None) -> tuple[Tensor, Tensor, Tensor]:
    distinct = torch.library.get_ctx().new_dynamic_size()
    representatives, counts = (rows.new_empty(distinct, dtype=torch.int64) for _ in range(2))
    return representatives, rows.new_empty(rows.shape[0], dtype=torch.int64), counts


_op = _library.register("unique(Tensor rows, str? backend) -> (Tensor, Tensor, Tensor)", _launch, _fake)
