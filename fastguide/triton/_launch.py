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
    for code in (OUT_OF_RANGE, INVALID_VALUE, DEGENERATE):
        if words[code] != NEVER:
            return code, words[code]
    return 0, -1


_WORDS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}


def words_of(rows: int, *tensors: Tensor) -> tuple[int, list[Tensor]]:
    """Return contiguous tensors of one dtype as flat integers of up to 8 bytes, and how many of them one row has.

    Args:
        rows: of the first tensor.
        tensors: not empty. The integers are as wide as every row and address allows.
    """
    row_bytes = tensors[0].nbytes // rows
    flat = [x.detach().reshape(-1).view(torch.uint8) for x in tensors]
    size = next(s for s in _WORDS if row_bytes % s == 0 and all(_aligned(x, s) for x in flat))
    return row_bytes // size, [x.view(_WORDS[size]) for x in flat]


def _aligned(x: Tensor, size: int) -> bool:
    return x.data_ptr() % size == 0 and x.storage_offset() % size == 0


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
        config: tile and warps, where they are not the default of `fastguide.triton.tuning`.
    """

    kernel: Any
    types: str
    constants: dict[str, Any]
    warps: int = 4
    label: str = ""
    config: tuple[int, int] | None = None
