"""What ``gaussian_step`` and ``gaussian_log_ratio`` check alike, and how a kernel's status becomes an error."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

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


def check_coefficients(values: tuple[Coefficient, ...], groups: int, like: Tensor) -> tuple[Tensor | None, list[float]]:
    """Return the coefficients of `NAMES` as a float32 tensor ``[4, G]``, or as four numbers where none is a tensor."""
    numbers, tensors = [], False
    for name, value in zip(NAMES, values, strict=True):
        if isinstance(value, Tensor) and value.dim() > 0:
            if not value.is_floating_point():
                raise TypeError(f"{name}: expected a number or a floating-point tensor [G], got {value.dtype}")
            if value.shape != (groups,):
                raise ValueError(f"{name}: expected a number or shape [{groups}], one a group, got {list(value.shape)}")
            if value.device != like.device:
                raise ValueError(f"{name}: on {value.device}, but x is on {like.device}")
            tensors = True
            numbers.append(0.0)
            continue
        number = float(value)
        if not abs(number) <= _MOST or (name == "sigma" and number < 0):
            raise ValueError(f"{name}: expected {_wanted(name)}, got {number}")
        numbers.append(number)
    if not tensors:
        return None, numbers
    rows = [
        value.detach().to(torch.float32)
        if isinstance(value, Tensor) and value.dim() > 0
        else like.new_full((groups,), n)
        for value, n in zip(values, numbers, strict=True)
    ]
    return torch.stack(rows), numbers


def _wanted(name: str) -> str:
    return "a finite number of at least 0" if name == "sigma" else "a finite number"


def refuse_coefficients(coefficients: Tensor | None) -> None:
    """Raise for a coefficient ``[4, G]`` that is not finite or a negative sigma."""
    if coefficients is None:
        return
    bad = ~coefficients.isfinite()
    bad[3] |= coefficients[3] < 0
    if bool(bad.any()):
        i, g = bad.nonzero()[0].tolist()
        raise ValueError(f"{NAMES[i]}: expected {_wanted(NAMES[i])}, got {float(coefficients[i, g])} for group {g}")


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
