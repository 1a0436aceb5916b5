"""The Triton kernels, imported when first asked for: Triton is optional, and its import takes a second."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastguide import cuda
from fastguide.deferred import pending
from fastguide.errors import BackendUnavailable, DegenerateWeights
from fastguide.ops import _native


@functools.cache
def _load(module: str) -> Any:
    try:
        return importlib.import_module(f"fastguide.triton.{module}")
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise BackendUnavailable(
            'backend "triton" needs Triton, which is not installed; run `pip install fastguide[gpu]`'
        ) from error


def _tell(name: str, keep: bool, words: Tensor) -> Exception | None:
    """Return the error that the status words of calls of operation ``name`` tell of."""
    code, index = _load("_launch").read_status(words)
    where = f"flat index {index}"
    if code == _native.INVALID_VALUE:
        return ValueError(f"{name}: refused a value at {where} of its input in a call whose checks were deferred")
    if code == _native.OUT_OF_RANGE:
        return IndexError(f"{name}: an ancestor out of range at {where} in a call whose checks were deferred")
    if code == _native.DEGENERATE and not keep:
        return DegenerateWeights(f"{name}: every weight of row {index} is zero in a call whose checks were deferred")
    return None


def launcher(
    name: str, x: Tensor, arguments: Sequence[Any], *, module: str | None = None, backend: str = "triton"
) -> Callable[..., None]:
    """Return what launches the kernels of operation ``name``, if they can run on tensors where ``x`` is.

    Triton launches on the current device whatever its pointers: a launcher for tensors of another makes that current.

    Args:
        arguments: of the launcher; there may be more.
        module: the module of ``fastguide.triton`` that holds it, where it is not named as the operation.
        backend: with ``"cuda"``, that of ``fastguide.cuda``, if it has kernels for these arguments.
    """
    if backend == "cuda" and x.is_cuda and (launch := cuda.launcher(name, arguments)) is not None:
        return launch
    of_triton: Callable[..., None] = getattr(_load(module or name), name)
    _load("_launch").require(name, x)
    if x.is_cuda and x.device.index != torch.cuda.current_device():
        return partial(_launch_on, x.device, of_triton)
    return of_triton


def _launch_on(device: torch.device, launch: Callable[..., None], *arguments: Any) -> None:
    with torch.cuda.device(device):
        launch(*arguments)


def run(
    name: str, x: Tensor, *arguments: Any, keep: bool = False, module: str | None = None, backend: str = "triton"
) -> tuple[int, int]:
    """Launch the kernels of operation ``name``, and return a status code and index as the compiled kernels do.

    Args:
        x: a tensor of those the kernels run on.
        arguments: of the `launcher`, less the status, which comes last.
        keep: whether degenerate rows are no error.
        module, backend: as for the `launcher`.
    """
    launch, launching = launcher(name, x, arguments, module=module, backend=backend), _load("_launch")
    later = pending()
    if later is not None:
        make, read = partial(launching.new_status, x.device), partial(_tell, name, keep)
        launch(*arguments, later.words((name, keep, x.device), make, read))
        return _native.OK, -1
    status = launching.new_status(x.device)
    launch(*arguments, status)
    code, index = launching.read_status(status)
    return code, index
