"""The extension ``fastguide._cuda``: whether it is there, what it can do, addresses and streams."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from fastguide.errors import BackendUnavailable

_cuda: Any
try:
    _cuda = importlib.import_module("fastguide._cuda")
except ImportError as error:
    _cuda, _reason = None, str(error)

RULES = ("systematic", "stratified", "argmax")
"""The rules of selection with kernels; with one draw a row, every unbiased rule is the first."""
_UNBIASED = ("systematic", "stratified", "multinomial", "residual")
_OPS = ("move", "reweight_select", "select", "unique")


def available() -> bool:
    """Say whether the extension is built."""
    return _cuda is not None


def implements(op: str, *, rule: str | None = None, draws: int | None = None) -> bool:
    """Say whether the extension is built and has a kernel for ``op``, of this rule where it selects ``draws`` a row."""
    if _cuda is None or op not in _OPS:
        return False
    return rule is None or rule in RULES or (draws == 1 and rule in _UNBIASED)


def module() -> Any:
    """Return the extension."""
    if _cuda is None:
        raise BackendUnavailable(
            f"fastguide._cuda is not built ({_reason}); install a CUDA compiler and build with "
            "pip install . -Ccmake.define.FASTGUIDE_CUDA=ON (docs/gpu.md), or leave the backend to be chosen"
        )
    return _cuda


def address(x: Tensor | None) -> int:
    """Return where the elements of ``x`` begin, 0 for None."""
    return 0 if x is None else x.data_ptr()


def stream(device: torch.device) -> int:
    """Return the handle of the current stream of ``device``."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


def workspace(bytes: int, device: torch.device) -> Tensor:
    """Return memory that the kernels of this call, and nothing else on this stream before them, use."""
    return torch.empty(bytes, dtype=torch.uint8, device=device)


def randomness(seeds: Tensor | None, seed: int, step: int | Tensor) -> tuple[int, int, int, int]:
    """Return the arguments that seeds ``[G]`` or one seed, and a step or a tensor ``[1]`` of it, are passed as."""
    at, number = (step.data_ptr(), 0) if isinstance(step, Tensor) else (0, step)
    return address(seeds), seed & 0xFFFFFFFFFFFFFFFF, at, number
