"""What ``gaussian_step`` and ``gaussian_log_ratio`` check alike, and how a kernel's status becomes an error."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from fastguide.deferred import deferring
from fastguide.ops import _native

_MOST = torch.finfo(torch.float32).max
_FLOATS = (torch.float32, torch.float16, torch.bfloat16)
NAMES = ("x_coefficient", "prediction_coefficient", "shift_coefficient", "sigma")

Coefficient = float | Tensor


def check_rows(name: str, rows: Tensor, like: Tensor | None) -> None:
    """Check ``x`` (``like`` is None) or a tensor of its shape."""
    allowed = (torch.float32,) if like is None else _FLOATS
    if rows.dtype not in allowed:
        wanted = "float32" if like is None else "float32, float16 or bfloat16"
        raise TypeError(f"{name}: expected {wanted}, got {rows.dtype}")
    if like is None:
        if rows.dim() == 0:
            raise ValueError(f"{name}: expected shape [U, ...], got a scalar")
    else:
        if rows.shape != like.shape:
            raise ValueError(f"{name}: expected the shape of x, {list(like.shape)}, got {list(rows.shape)}")
        if rows.device != like.device:
            raise ValueError(f"{name}: on {rows.device}, but x is on {like.device}")


def laid_out(rows: Tensor) -> Tensor:
    """Return ``rows`` as the kernels read them: each contiguous, at a distance of their own."""
    if rows.is_neg():
        rows = rows.resolve_neg()
    if rows.is_contiguous() or (rows.shape[0] > 0 and rows[0].is_contiguous()):
        return rows
    return rows.contiguous()


def check_coefficients(
    values: tuple[Coefficient, ...], groups: int | None, like: Tensor, least_sigma: str = "at least 0"
) -> tuple[Tensor | None, list[Any]]:
    """Return the coefficients of `NAMES` as a float32 tensor ``[4, G]``, or as four where they are the same for all groups.

    Of these, numbers have been checked, and tensors of one, where ``like`` is, are not read. Without ``groups`` the first
    tensor of another length says how many there are. ``least_sigma``: ``"at least 0"`` or ``"above 0"``.
    """
    single: list[Any] = []
    tensors = 0
    for name, value in zip(NAMES, values, strict=True):
        if not isinstance(value, Tensor) or (value.dim() == 0 and value.device != like.device):
            number = float(value)
            if not _allowed(name, number, least_sigma):
                _refuse(name, number, least_sigma)
            single.append(number)
            continue
        tensors += 1
        if not value.is_floating_point():
            raise TypeError(f"{name}: expected a number or a floating-point tensor [G], got {value.dtype}")
        groups = _groups_of(values) if groups is None else groups
        if value.shape not in ((), (1,), (groups,)):
            raise ValueError(f"{name}: expected a number or shape [{groups}], one a group, got {list(value.shape)}")
        if value.device != like.device:
            raise ValueError(f"{name}: on {value.device}, but x is on {like.device}")
        single.append(value.detach())
    if tensors == 0:
        return None, single
    assert groups is not None
    # A registered operation takes numbers or a tensor [4, G], and no list of both.
    if not torch.compiler.is_compiling() and all(not isinstance(x, Tensor) or x.numel() == 1 for x in single):
        return None, single
    rows = [
        value.to(torch.float32).expand(groups) if isinstance(value, Tensor) else like.new_full((groups,), value)
        for value in single
    ]
    return torch.stack(rows), [0.0] * len(rows)


def _groups_of(values: tuple[Coefficient, ...]) -> int:
    lengths = (len(value) for value in values if isinstance(value, Tensor) and value.dim() > 0)
    return next((length for length in lengths if length != 1), 1)


def coefficients_for(backend: str, values: list[Any], least_sigma: str = "at least 0") -> list[Any]:
    """Return four coefficients as a backend takes them: those of tensors are read by the Triton kernels themselves."""
    for value in values:
        if isinstance(value, Tensor):
            break
    else:
        return values
    if backend == "triton" and deferring():
        return values
    read = [float(value) for value in values]
    for name, number in zip(NAMES, read, strict=True):
        if not _allowed(name, number, least_sigma):
            _refuse(name, number, least_sigma)
    return values if backend == "triton" else read


def _refuse(name: str, number: float, least_sigma: str) -> NoReturn:
    raise ValueError(f"{name}: expected {_wanted(name, least_sigma)}, got {number}")


def _allowed(name: str, number: float, least_sigma: str) -> bool:
    if name == "sigma" and (number < 0 or (number == 0 and least_sigma == "above 0")):
        return False
    return abs(number) <= _MOST


def _wanted(name: str, least_sigma: str) -> str:
    return f"a finite number {least_sigma}" if name == "sigma" else "a finite number"


def refuse_coefficients(coefficients: Tensor | None, least_sigma: str = "at least 0") -> None:
    """Raise for a coefficient ``[4, G]`` that is not finite or a sigma too small."""
    if coefficients is None:
        return
    allowed = coefficients.isfinite()
    allowed[3] &= coefficients[3] > 0 if least_sigma == "above 0" else coefficients[3] >= 0
    if not bool(allowed.all()):
        i, g = (~allowed).nonzero()[0].tolist()
        raise ValueError(
            f"{NAMES[i]}: expected {_wanted(NAMES[i], least_sigma)}, got {float(coefficients[i, g])} for group {g}"
        )


def raise_status(
    code: int, index: int, states: int, ancestors: Tensor | None, slots: Tensor | None, particles: int, branch: int
) -> NoReturn:
    """Raise the error that a kernel's status stands for (the index as ``csrc/cpu/gaussian_step.h`` numbers it)."""
    assert code == _native.OUT_OF_RANGE
    if index < particles and ancestors is not None:
        raise IndexError(f"ancestors[{index}] is {int(ancestors[index])}, outside the {states} rows of x")
    number = None if slots is None else int(slots[index - particles])
    raise IndexError(
        f"slots[{index - particles}] is {number}; with branch = {branch} the slots of children pass 32 bits"
    )
