"""Arrays of NumPy, CuPy and JAX where an operation expects tensors: without a copy, by DLPack, and results of the same kind.

An operation asks here only after it has seen that an argument is no tensor, so tensors pay nothing.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import numpy as np
import torch
import torch.utils.dlpack
from torch import Tensor

T = TypeVar("T")


def is_foreign(x: object) -> bool:
    """Whether ``x`` is an array that torch can read, and no tensor."""
    return hasattr(x, "__dlpack__") and not isinstance(x, Tensor)


def in_torch(operation: Callable[..., T], first: Any, scope: Mapping[str, Any]) -> T:
    """Call ``operation`` with its arguments, taken from ``scope``, as tensors; return arrays of the kind of ``first``.

    Raises:
        TypeError, ValueError: an array that torch cannot read, or cannot write where the operation writes in place.
    """
    arguments = {}
    for name in inspect.signature(operation).parameters:
        written = name == "out" or (name == "tensors" and bool(scope.get("inplace")))
        arguments[name] = _each(functools.partial(_tensor, name, written), scope[name])
    return cast(T, _each(lambda x: _like(first, x) if isinstance(x, Tensor) else x, operation(**arguments)))


def _each(f: Callable[[Any], Any], x: Any) -> Any:
    if isinstance(x, (list, tuple)):
        parts = [_each(f, part) for part in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    return f(x)


def _tensor(name: str, written: bool, x: Any) -> Any:
    if not is_foreign(x):
        return x
    # JAX arrays do not change, and torch does not write to read-only memory or read backwards.
    plain = isinstance(x, np.ndarray) and x.flags.writeable and x.dtype.isnative and all(s >= 0 for s in x.strides)
    if written and not (plain if isinstance(x, np.ndarray) else hasattr(x, "__setitem__") and _package(x) != "jaxlib"):
        raise ValueError(f"{name}: expected an array that can be written in place, got a read-only {type(x).__name__}")
    try:
        if not isinstance(x, np.ndarray):
            return torch.utils.dlpack.from_dlpack(x)
        return torch.from_numpy(x if plain else np.array(x, dtype=x.dtype.newbyteorder("="), order="C"))
    except (TypeError, ValueError, RuntimeError, BufferError) as error:
        raise TypeError(f"{name}: torch cannot read this {type(x).__name__} of {x.dtype}; {error}") from None


def _package(x: Any) -> str:
    return type(x).__module__.partition(".")[0]


def _like(first: Any, x: Tensor) -> Any:
    if isinstance(first, np.ndarray):
        return x.numpy()
    space = first.__array_namespace__() if hasattr(first, "__array_namespace__") else sys.modules[_package(first)]
    return space.from_dlpack(x)
