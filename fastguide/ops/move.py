"""Particles follow their ancestors: every state tensor gathered in one call, or only dead slots overwritten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from fastguide import config
from fastguide.ops import _native
from fastguide.reference import move as reference


@overload
def move(tensors: Tensor, ancestors: Tensor, *, inplace: bool = ..., backend: str | None = ...) -> Tensor: ...
@overload
def move(
    tensors: Sequence[Tensor], ancestors: Tensor, *, inplace: bool = ..., backend: str | None = ...
) -> list[Tensor]: ...
def move(
    tensors: Tensor | Sequence[Tensor], ancestors: Tensor, *, inplace: bool = False, backend: str | None = None
) -> Tensor | list[Tensor]:
    """Gather the rows of state tensors by ancestors, within groups.

    Row ``g * K + k`` of a result is row ``g * N + ancestors[g, k]`` of its source. The result carries no gradient.

    Args:
        tensors: one tensor or several, ``[G * N, ...]`` of any dtypes and trailing shapes.
        ancestors: ``[G, K]`` or ``[K]`` (one group) int32 or int64, each in ``[0, N)``.
        inplace: overwrite ``tensors``, contiguous and with N = K, and return them. Every ancestor must keep its own place
            (``ancestors[g, a] == a`` for every ``a`` in use, as ``select(order="slots")`` gives them), so that only rows
            without offspring are written.
        backend: ``"cpu"`` or ``"torch"``; default as :func:`fastguide.config.choose_backend` says.

    Returns:
        ``[G * K, ...]`` for each source: a tensor for a tensor, a list for a sequence.

    Raises:
        IndexError: an ancestor is outside ``[0, N)``.
        ValueError: shapes do not fit, or ``inplace`` is asked for where it cannot be; nothing is written then.
        TypeError: ancestors are not integers.
    """
    sources = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if torch.compiler.is_compiling():
        if inplace:
            torch.ops.fastguide.move_(sources, ancestors, backend)
            return tensors if isinstance(tensors, Tensor) else sources
        moved: list[Tensor] = torch.ops.fastguide.move(sources, ancestors, backend)
        return moved[0] if isinstance(tensors, Tensor) else moved
    ancestors, rows = _check(sources, ancestors)
    if inplace:
        moved = _move_in_place(sources, ancestors, rows, backend)
    else:
        moved = _move(sources, ancestors, rows, backend)
    return moved[0] if isinstance(tensors, Tensor) else moved


def _check(sources: list[Tensor], ancestors: Tensor) -> tuple[Tensor, int]:
    """Return ancestors as contiguous ``[G, K]`` and the number of rows of a group."""
    if ancestors.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"ancestors: expected int32 or int64, got {ancestors.dtype}")
    if ancestors.dim() == 1:
        ancestors = ancestors[None]
    if ancestors.dim() != 2:
        raise ValueError(f"ancestors: expected shape [G, K] or [K], got {list(ancestors.shape)}")
    groups = ancestors.shape[0]
    for i, tensor in enumerate(sources):
        if tensor.dim() == 0 or groups == 0 or tensor.shape[0] % groups or tensor.shape[0] != sources[0].shape[0]:
            count = (
                f"{sources[0].shape[0]} rows as tensors[0] has"
                if i
                else f"a multiple of {groups} rows, one part a group"
            )
            raise ValueError(f"tensors[{i}]: expected {count}, got shape {list(tensor.shape)}")
        if tensor.device != ancestors.device:
            raise ValueError(f"tensors[{i}]: on {tensor.device}, but ancestors are on {ancestors.device}")
    return ancestors.contiguous(), sources[0].shape[0] // groups if sources else 0


def _raise(code: int, index: int, ancestors: Tensor, rows: int) -> None:
    if code == _native.OK:
        return
    g, k = divmod(index, ancestors.shape[1])
    name, value = f"ancestors[{g}, {k}]", int(ancestors[g, k])
    if code == _native.OUT_OF_RANGE:
        raise IndexError(f"{name} is {value}, outside the {rows} rows of a group")
    raise ValueError(
        f"{name} is {value}, but row {value} does not keep its place (ancestors[{g}, {value}] is "
        f"{int(ancestors[g, value])}); in place, take ancestors from select(order='slots')"
    )


def _plain(tensor: Tensor) -> Tensor:
    """Return the tensor with the bytes in memory that it stands for, row after row."""
    if tensor.is_complex():
        tensor = tensor.resolve_conj()
    return tensor.resolve_neg().contiguous()


def _move(sources: list[Tensor], ancestors: Tensor, rows: int, backend: str | None) -> list[Tensor]:
    groups, draws = ancestors.shape
    if config.choose_backend(ancestors.device, backend) == "torch":
        _raise(*reference.check_ancestors(ancestors, rows, False), ancestors, rows)
        return reference.move([s.detach() for s in sources], ancestors, rows)
    sources = [_plain(s) for s in sources]
    targets = [s.new_empty((groups * draws, *s.shape[1:])) for s in sources]
    _raise(*_native.move(sources, targets, ancestors, rows, False), ancestors, rows)
    return targets


def _move_in_place(sources: list[Tensor], ancestors: Tensor, rows: int, backend: str | None) -> list[Tensor]:
    if ancestors.shape[1] != rows:
        raise ValueError(f"ancestors: in place expects one a row, [G, {rows}], got {list(ancestors.shape)}")
    for i, tensor in enumerate(sources):
        if not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
            raise ValueError(f"tensors[{i}]: in place expects a contiguous tensor, got strides {list(tensor.stride())}")
        if tensor.requires_grad:
            raise ValueError(f"tensors[{i}]: requires a gradient, which a move in place would spoil; detach it or copy")
    if config.choose_backend(ancestors.device, backend) == "torch":
        _raise(*reference.check_ancestors(ancestors, rows, True), ancestors, rows)
        for source, moved in zip(sources, reference.move(sources, ancestors, rows), strict=True):
            source.copy_(moved)
    else:
        _raise(*_native.move(sources, sources, ancestors, rows, True), ancestors, rows)
    return sources
