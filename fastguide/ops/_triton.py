"""The Triton kernels, imported when first asked for: Triton is optional, and its import takes a second."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from fastguide.errors import BackendUnavailable
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


class Deferred:
    """Status words of operations whose errors are read later, all at once."""

    def __init__(self) -> None:
        self._words: dict[tuple[str, bool], Tensor] = {}

    def words(self, name: str, keep: bool, device: torch.device) -> Tensor:
        """Return the status that calls of operation ``name`` lower, one for those that ``keep`` degenerate rows."""
        if (name, keep) not in self._words:
            self._words[name, keep] = _load("_launch").new_status(device)
        return self._words[name, keep]

    def check(self) -> None:
        """Read every status, which waits for the device, and raise for the first operation that refused something.

        Raises:
            ValueError: an operation met an input that it refuses; the message has its flat index.
            IndexError: an ancestor out of range.
            DegenerateWeights: every weight of a row was zero where that is an error.
        """
        for (name, keep), words in self._words.items():
            code, index = _load("_launch").read_status(words)
            if code == _native.INVALID_VALUE:
                raise ValueError(f"{name}: refused a value at flat index {index} of its input in a deferred call")
            if code == _native.OUT_OF_RANGE:
                raise IndexError(f"{name}: an ancestor out of range at flat index {index} in a deferred call")
            if code == _native.DEGENERATE and not keep:
                from fastguide.errors import DegenerateWeights

                raise DegenerateWeights(f"{name}: every weight of row {index} is zero in a deferred call")


_deferred: ContextVar[Deferred | None] = ContextVar("fastguide_deferred", default=None)


@contextmanager
def deferred(into: Deferred | None = None) -> Iterator[Deferred]:
    """Let Triton kernels of the block leave their errors on the device, until `Deferred.check`.

    Inside, no operation with a result of fixed shape waits for the device. Results after an error hold anything; no kernel
    reads or writes out of bounds for it.

    Args:
        into: status words to go on with, as when a captured graph is replayed.
    """
    words = Deferred() if into is None else into
    token = _deferred.set(words)
    try:
        yield words
    finally:
        _deferred.reset(token)


def is_deferring() -> bool:
    """Say whether errors are read later, so that nothing may be read from the device now."""
    return _deferred.get() is not None


def launcher(name: str, x: Tensor, module: str | None = None) -> Callable[..., None]:
    """Return ``fastguide.triton.<module>.<name>``, if kernels can run on tensors where ``x`` is."""
    launch: Callable[..., None] = getattr(_load(module or name), name)
    _load("_launch").require(name, x)
    return launch


def run(name: str, x: Tensor, *arguments: Any, keep: bool = False, module: str | None = None) -> tuple[int, int]:
    """Launch the kernels of operation ``name``, and return a status code and index as the compiled kernels do.

    Args:
        x: a tensor of those the kernels run on.
        arguments: of the `launcher`, less the status, which comes last.
        keep: whether degenerate rows are no error.
        module: the module that holds the launcher, where it is not named as the operation.
    """
    launch, launching = launcher(name, x, module), _load("_launch")
    later = _deferred.get()
    if later is not None:
        launch(*arguments, later.words(name, keep, x.device))
        return _native.OK, -1
    status = launching.new_status(x.device)
    launch(*arguments, status)
    code, index = launching.read_status(status)
    return code, index
