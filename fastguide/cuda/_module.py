"""The extension ``fastguide._cuda``: whether it is there, what it can do, and how it is called."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastguide.errors import BackendUnavailable

_cuda: Any
try:
    _cuda = importlib.import_module("fastguide._cuda")
except ImportError as error:
    _cuda, _reason = None, str(error)

SYSTEMATIC, STRATIFIED, ARGMAX = 0, 1, 4
"""Codes of the rules of selection with kernels (``csrc/core/selection.h``); with one draw a row all below the last are one."""


def _select(_: Any, k: int, rule: int, *arguments: Any) -> bool:
    return rule in (SYSTEMATIC, STRATIFIED, ARGMAX) or (k == 1 and rule < ARGMAX)


def _reweight_select(
    _: Any, betas: Any, beta: Any, previous_betas: Any, previous_beta: Any, rule: int, *__: Any
) -> bool:
    return rule in (SYSTEMATIC, STRATIFIED)


def _any(*arguments: Any) -> bool:
    return True


_OPS: dict[str, Callable[..., bool]] = {
    "move": _any, "reweight_select": _reweight_select, "select": _select, "unique": _any,
}  # fmt: skip
"""What there are kernels for, by the arguments of the launcher of that name."""


def available() -> bool:
    """Say whether the extension is built."""
    return _cuda is not None


def launcher(op: str, arguments: Sequence[Any]) -> Callable[..., None] | None:
    """Return the launcher of an operation if the extension has a kernel for these arguments, else None."""
    if _cuda is None or op not in _OPS or not _OPS[op](*arguments):
        return None
    launch: Callable[..., None] = getattr(importlib.import_module(f"fastguide.cuda.{op}"), op)
    return launch


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


def call(function: Callable[..., None], device: torch.device, *arguments: Any) -> None:
    """Call a function of the extension on the current stream of ``device``, which it takes last."""
    if device.type != "cuda":
        function(*arguments, 0)
    elif device.index == torch.cuda.current_device():
        function(*arguments, torch.cuda.current_stream().cuda_stream)
    else:
        with torch.cuda.device(device):
            function(*arguments, torch.cuda.current_stream().cuda_stream)


def workspace(bytes: int, device: torch.device) -> Tensor:
    """Return memory that the kernels of this call, and nothing else on this stream before them, use."""
    return torch.empty(bytes, dtype=torch.uint8, device=device)


def randomness(seeds: Tensor | None, seed: int, step: int | Tensor) -> tuple[int, int, int, int]:
    """Return the arguments that seeds ``[G]`` or one seed, and a step or a tensor ``[1]`` of it, are passed as."""
    at, number = (step.data_ptr(), 0) if isinstance(step, Tensor) else (0, step)
    return address(seeds), seed & 0xFFFFFFFFFFFFFFFF, at, number
