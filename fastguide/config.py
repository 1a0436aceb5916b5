"""Settings from the environment, read here and nowhere else, once, on import (a look-up costs as much as a kernel).

``FASTGUIDE_BACKEND``: ``torch`` (the reference), ``cpu``, ``triton`` or ``cuda``, instead of the choice by device.
``FASTGUIDE_SIMD``: ``portable``, ``avx2``, ``avx512`` or ``neon``, instead of the best that the processor has.
``FASTGUIDE_THREADS``: threads of the CPU kernels, instead of ``torch.get_num_threads()``.
``FASTGUIDE_CACHE``: the folder of what is kept between processes, instead of ``$XDG_CACHE_HOME/fastguide`` or
``~/.cache/fastguide``. Nothing is written there unasked.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import torch

BACKENDS = ("torch", "cpu", "triton", "cuda")

_CPU = torch.device("cpu")
_ENVIRONMENT_BACKEND = os.environ.get("FASTGUIDE_BACKEND") or None
_ENVIRONMENT_THREADS = os.environ.get("FASTGUIDE_THREADS") or None
_backend: ContextVar[str | None] = ContextVar("fastguide_backend", default=None)


def backend_of_context() -> ContextVar[str | None] | None:
    """Return what holds the backend that `backend` sets, or None where the environment sets another."""
    return _backend if _ENVIRONMENT_BACKEND is None else None


def _check_backend(name: str, where: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{where}: unknown backend {name!r}; choose one of {', '.join(BACKENDS)}")
    return name


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Run the operations inside the block on one of `BACKENDS`; ``"torch"`` is the reference."""
    token = _backend.set(_check_backend(name, "backend"))
    try:
        yield
    finally:
        _backend.reset(token)


def choose_backend(device: torch.device, requested: str | None = None, *, cuda: bool = False) -> str:
    """Return the backend for tensors on ``device``: the argument, the context manager, the environment, the device.

    The device chooses ``"cpu"`` for itself, ``"triton"`` on a GPU where Triton is installed, and else ``"torch"``. An
    operation of which ``fastguide._cuda`` has a part says ``cuda=True``: it gets ``"cuda"`` on a GPU, where that is built.
    Others get ``"triton"`` where ``"cuda"`` is asked for.
    """
    chosen = _asked_for(requested)
    if chosen is None:
        if device == _CPU:
            return "cpu"
        chosen = "triton" if device.type == "cuda" and _has("triton") else "torch"
        return "cuda" if chosen == "triton" and cuda and _has("fastguide._cuda") else chosen
    return "triton" if chosen == "cuda" and not cuda else chosen


def _asked_for(requested: str | None) -> str | None:
    if requested is not None:
        return _check_backend(requested, "backend")
    if (chosen := _backend.get()) is not None:
        return chosen
    if _ENVIRONMENT_BACKEND is not None:
        return _check_backend(_ENVIRONMENT_BACKEND, "FASTGUIDE_BACKEND")
    return None


@functools.cache
def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def simd_level() -> str | None:
    """Return the SIMD level that ``FASTGUIDE_SIMD`` asks for, or None."""
    return os.environ.get("FASTGUIDE_SIMD") or None


def threads() -> int:
    """Return the number of threads that CPU kernels use."""
    if _ENVIRONMENT_THREADS is not None:
        if not _ENVIRONMENT_THREADS.isdigit() or int(_ENVIRONMENT_THREADS) < 1:
            raise ValueError(f"FASTGUIDE_THREADS: expected a positive whole number, got {_ENVIRONMENT_THREADS!r}")
        return int(_ENVIRONMENT_THREADS)
    return torch.get_num_threads()


def cache_folder() -> Path:
    """Return the folder of what is kept between processes; it may not exist."""
    if own := os.environ.get("FASTGUIDE_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return Path(shared or os.path.expanduser("~/.cache")) / "fastguide"
