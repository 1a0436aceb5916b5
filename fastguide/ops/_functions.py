"""Compiled functions that `fastguide.ops.evaluate` calls, by number.

A graph that torch has compiled holds the number and not the address, so that it can never call a function that is gone.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class CompiledFunction:
    """A function ``void(states*, int64 rows, int64 columns, float* out)`` and what belongs to it.

    Attributes:
        name: for messages.
        dtype: of the states that it reads.
        address: where it is, or 0 if it is for a GPU only.
        owner: what has to stay alive for the address to be good.
        python: the same on a tensor of states ``[n, columns]``, or None; it raises what the compiled one cannot.
        device: the same as a ``triton.jit`` device function, or None.
    """

    name: str
    dtype: torch.dtype
    address: int
    owner: object
    python: Callable[[Tensor], Tensor] | None = None
    device: Any = None


_numbers = itertools.count()
_functions: weakref.WeakValueDictionary[int, CompiledFunction] = weakref.WeakValueDictionary()


def enroll(function: CompiledFunction) -> int:
    """Return a number for ``function``, which the caller keeps alive."""
    number = next(_numbers)
    _functions[number] = function
    return number


def find(number: int) -> CompiledFunction:
    """Return the function of a number.

    Raises:
        RuntimeError: it is gone.
    """
    function = _functions.get(number)
    if function is None:
        raise RuntimeError("value: the function is gone; keep the object that was compiled for as long as it is used")
    return function
