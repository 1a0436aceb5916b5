"""What launchers share: where kernels may run, how they are compiled, and the status they write on the device."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from fastguide.errors import BackendUnavailable

EXACT: dict[str, Any] = {"enable_fp_fusion": False}
"""Options of every launch: a product and a sum stay two roundings, as in the reference."""

CODES = 5
"""Status codes of ``fastguide.ops._native``: OK, INVALID_VALUE, DEGENERATE, OUT_OF_RANGE, OUT_OF_MEMORY."""
INVALID_VALUE, DEGENERATE, OUT_OF_RANGE = 1, 2, 3
NEVER = 2**63 - 1


def require(name: str, x: Tensor) -> None:
    """Raise `BackendUnavailable` unless kernels can run on tensors where ``x`` is: a GPU, or the CPU interpreted."""
    if not x.is_cuda and not interpreted():
        raise BackendUnavailable(
            f'{name}: backend "triton" needs tensors on a GPU, got {x.device}; set TRITON_INTERPRET=1 before the first '
            'import to interpret kernels on the CPU, or use backend="cpu"'
        )


def interpreted() -> bool:
    """Say whether Triton interprets kernels on the CPU in this process."""
    return bool(triton.knobs.runtime.interpret)


def new_status(device: torch.device) -> Tensor:
    """Return an int64 status: word ``c`` holds the first index at which code ``c`` arose, or `NEVER`.

    Word 0 holds the first trouble of operations that rank theirs (`fastguide.triton._status`).

    Kernels lower a word by ``atomic_min``, so the index does not depend on the order of programs.
    """
    return torch.full((CODES,), NEVER, dtype=torch.int64, device=device)


def read_status(status: Tensor) -> tuple[int, int]:
    """Read a status from the device: the gravest code and its index, as the compiled kernels return them."""
    words = status.tolist()
    if words[0] != NEVER:
        return words[0] & 7, (words[0] & 2**61 - 1) >> 3
    for code in (INVALID_VALUE, OUT_OF_RANGE, DEGENERATE):
        if words[code] != NEVER:
            return code, words[code]
    return 0, -1


def power_of_two(n: int) -> int:
    """Return the least power of two that is not below ``n``: tiles have such sizes."""
    return 1 << max(n - 1, 0).bit_length()


def cdiv(a: int, b: int) -> int:
    """Return ``ceil(a / b)``."""
    return -(-a // b)


class Variant(NamedTuple):
    """A kernel as launchers usually launch it, for compilation without a GPU.

    Attributes:
        kernel: the jitted function.
        types: of its arguments that are not constants, in order: ``"*fp32 *i64 i32"``.
        constants: the others.
        warps: of a program.
        label: tells apart the variants of one kernel.
    """

    kernel: Any
    types: str
    constants: dict[str, Any]
    warps: int = 4
    label: str = ""
