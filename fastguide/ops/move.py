"""Particles follow their ancestors: every state tensor gathered in one call, or only dead slots overwritten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor

from fastguide import config
from fastguide.ops import _arrays, _checks, _library, _native, _triton
from fastguide.reference import move as _reference


@overload
def move(
    tensors: Tensor, ancestors: Tensor, *, inplace: bool = ..., out: Tensor | None = ..., backend: str | None = ...
) -> Tensor: ...
@overload
def move(
    tensors: Sequence[Tensor],
    ancestors: Tensor,
    *,
    inplace: bool = ...,
    out: Sequence[Tensor] | None = ...,
    backend: str | None = ...,
) -> list[Tensor]: ...
def move(
    tensors: Tensor | Sequence[Tensor],
    ancestors: Tensor,
    *,
    inplace: bool = False,
    out: Tensor | Sequence[Tensor] | None = None,
    backend: str | None = None,
) -> Tensor | list[Tensor]:
    """Gather the rows of state tensors by ancestors, within groups.

    Row ``g * K + k`` of a result is row ``g * N + ancestors[g, k]`` of its source. The result carries no gradient.

    Args:
        tensors: one tensor or several, ``[G * N, ...]`` of any dtypes and trailing shapes.
        ancestors: ``[G, K]`` or ``[K]`` (one group) int32 or int64, each in ``[0, N)``.
        inplace: overwrite ``tensors``, contiguous and with N = K, and return them. Every ancestor must keep its own
            place (``ancestors[g, a] == a`` for every ``a`` in use, as ``select(order="slots")`` gives them), so that
            only rows without offspring are written.
        out: a tensor for a tensor, as many for a sequence: contiguous ``[G * K, ...]`` of the dtypes of the sources and
            apart from them, to write into and return.
        backend: ``"cpu"``, ``"triton"``, ``"cuda"`` or ``"torch"``; default as :func:`fastguide.config.choose_backend` says.

    Returns:
        ``[G * K, ...]`` for each source: a tensor for a tensor, a list for a sequence.

    Raises:
        IndexError: an ancestor is outside ``[0, N)``.
        ValueError: shapes do not fit, or ``inplace`` or ``out`` is given where it cannot be; nothing is written then.
        TypeError: ancestors are not integers; a tensor of ``out`` has another dtype than its source.
    """
    if type(ancestors) is not Tensor and _arrays.is_foreign(ancestors):
        return _arrays.in_torch(move, ancestors, locals())
    single = isinstance(tensors, Tensor)
    sources = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    ancestors = _check(sources, ancestors)
    compiling = torch.compiler.is_compiling()
    if out is not None:
        targets = [out] if isinstance(out, Tensor) else list(out)
        if inplace or single != isinstance(out, Tensor) or len(targets) != len(sources):
            wanted = (
                "none with inplace=True" if inplace else "a tensor" if single else f"a list of {len(sources)} tensors"
            )
            raise ValueError(f"out: expected {wanted}, got {type(out).__name__} of {len(targets)}")
        for i, (target, source) in enumerate(zip(targets, sources, strict=True)):
            shape = (ancestors.numel(), *source.shape[1:])
            _checks.output("out" if single else f"out[{i}]", target, shape, source.dtype, source)
        if compiling:
            for target, moved in zip(targets, _op(sources, ancestors, backend), strict=True):
                target.copy_(moved)
        else:
            _launch(sources, ancestors, backend, targets)
    elif inplace:
        (_op_in_place if compiling else _launch_in_place)(sources, ancestors, backend)
        targets = sources
    else:
        targets = (_op if compiling else _launch)(sources, ancestors, backend)
    return targets[0] if single else targets


def _check(sources: list[Tensor], ancestors: Tensor) -> Tensor:
    """Return ancestors as contiguous ``[G, K]`` that fit the sources."""
    if ancestors.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"ancestors: expected int32 or int64, got {ancestors.dtype}")
    if ancestors.dim() == 1:
        ancestors = ancestors[None]
    if ancestors.dim() != 2:
        raise ValueError(f"ancestors: expected shape [G, K] or [K], got {list(ancestors.shape)}")
    groups, device = ancestors.shape[0], ancestors.device
    rows = sources[0].shape[:1] if sources else None
    for i, tensor in enumerate(sources):
        if tensor.shape[:1] != rows or not rows or groups == 0 or rows[0] % groups:
            wanted = f"{sources[0].shape[0]} rows, as tensors[0] has" if i else f"equal parts for {groups} groups"
            raise ValueError(f"tensors[{i}]: expected {wanted}, got shape {list(tensor.shape)}")
        if tensor.device != device:
            raise ValueError(f"tensors[{i}]: on {tensor.device}, but ancestors are on {device}")
    return ancestors.contiguous()


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


def _launch(
    sources: list[Tensor], ancestors: Tensor, backend: str | None, targets: list[Tensor] | None = None
) -> list[Tensor]:
    if not sources:
        return []
    groups, draws = ancestors.shape
    rows = sources[0].shape[0] // groups
    if targets is not None:
        _checks.apart("out", targets, (*sources, ancestors))
    backend = config.choose_backend(ancestors.device, backend, cuda=True)
    if backend == "torch":
        _raise(*_reference.check_ancestors(ancestors, rows, False), ancestors, rows)
        moved = _reference.move([s.detach() for s in sources], ancestors, rows)
        return moved if targets is None else [t.copy_(m) for t, m in zip(targets, moved, strict=True)]
    sources = [_native.plain(s) for s in sources]
    if targets is None:
        if draws == rows:
            targets = [torch.empty_like(s) for s in sources]
        else:
            targets = [s.new_empty((groups * draws, *s.shape[1:])) for s in sources]
        if backend == "cpu":
            _native.advise_huge_pages(*targets)
    _run(sources, targets, ancestors, rows, False, backend)
    return targets


def _run(
    sources: list[Tensor], targets: list[Tensor], ancestors: Tensor, rows: int, in_place: bool, backend: str
) -> None:
    if backend == "cpu":
        _checks.on_cpu("tensors", ancestors)
        status = _native.move(sources, targets, ancestors, rows, in_place)
    else:
        status = _triton.run("move", ancestors, sources, targets, ancestors, rows, in_place, backend=backend)
    _raise(*status, ancestors, rows)


def _launch_in_place(sources: list[Tensor], ancestors: Tensor, backend: str | None) -> None:
    if not sources:
        return
    groups, draws = ancestors.shape
    rows = sources[0].shape[0] // groups
    if draws != rows:
        raise ValueError(f"ancestors: in place expects one a row, [G, {rows}], got {list(ancestors.shape)}")
    for i, tensor in enumerate(sources):
        if not tensor.is_contiguous() or tensor.is_conj() or tensor.is_neg():
            raise ValueError(f"tensors[{i}]: in place expects a contiguous tensor, got strides {list(tensor.stride())}")
        if tensor.requires_grad:
            raise ValueError(f"tensors[{i}]: requires a gradient, which a move in place would spoil; detach it or copy")
    backend = config.choose_backend(ancestors.device, backend, cuda=True)
    if backend == "torch":
        _raise(*_reference.check_ancestors(ancestors, rows, True), ancestors, rows)
        for source, moved in zip(sources, _reference.move(sources, ancestors, rows), strict=True):
            source.copy_(moved)
    else:
        _run(sources, sources, ancestors, rows, True, backend)


def _fake(sources: list[Tensor], ancestors: Tensor, backend: str | None) -> list[Tensor]:
    return [s.new_empty((ancestors.numel(), *s.shape[1:])) for s in sources]


def _fake_in_place(sources: list[Tensor], ancestors: Tensor, backend: str | None) -> None:
    return None


_op = _library.register("move(Tensor[] tensors, Tensor ancestors, str? backend) -> Tensor[]", _launch, _fake)
_op_in_place = _library.register(
    "move_(Tensor(a!)[] tensors, Tensor ancestors, str? backend) -> ()", _launch_in_place, _fake_in_place
)
