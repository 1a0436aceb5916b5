"""Functions of one's own as compiled values: written in Python and compiled by numba, or given by their address.

The kernels call ``void f(T* states, int64 rows, int64 columns, float* out)`` from all threads at once, without the
interpreter lock. ``out`` comes filled with NaN; a function that fails leaves it so, and that is an error that names the
function and the state.
"""

from __future__ import annotations

import ctypes
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import torch
from torch import Tensor

from fastguide.errors import BackendUnavailable
from fastguide.ops._functions import CompiledFunction, enroll
from fastguide.values.compiled.protocol import Compiled

DTYPES = {
    torch.float32: "float32",
    torch.float64: "float64",
    torch.uint8: "uint8",
    torch.int32: "int32",
    torch.int64: "int64",
}
"""Dtypes of states that a function may read, and what numba calls them."""


class _Function(Compiled):
    cheap = False  # nobody knows what it costs

    def check_columns(self, columns: int) -> None:
        """A function sees any number of columns."""


class _OneDtype(_Function):
    """A function that reads states of one dtype."""

    name: str
    dtype: torch.dtype
    _number: int

    def _check_dtype(self) -> None:
        if self.dtype not in DTYPES:
            raise TypeError(f"dtype: expected one of {', '.join(map(str, DTYPES))}, got {self.dtype}")

    def _enroll(self, function: CompiledFunction) -> None:
        object.__setattr__(self, "_function", function)
        object.__setattr__(self, "_number", enroll(function))

    def arguments(self, dtype: torch.dtype) -> tuple[list[Tensor], list[int]]:
        """Return the number of the function."""
        if dtype != self.dtype:
            raise TypeError(f"{self.name}: states: the function reads {self.dtype}, got {dtype}; convert them")
        return [], [self._number]


@dataclass(frozen=True, eq=False)
class Function(_OneDtype):
    """A compiled function, whatever it was written in.

    Args:
        address: where ``void f(T* states, int64 rows, int64 columns, float* out)`` is: a whole number, a ctypes function,
            or an object with ``.address``, such as a numba ``cfunc``, which is kept alive. It must not write into the
            states, and runs in several threads at once. Nothing can check an address: a wrong one crashes.
        dtype: of the states it reads: float32, float64, uint8, int32 or int64.
        name: for messages, tables and reports.
    """

    address: Any
    dtype: torch.dtype = torch.float32
    name: str = "function"
    kind: str = field(default="function", init=False, repr=False)
    _function: CompiledFunction = field(init=False, repr=False)
    _number: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._check_dtype()
        function = CompiledFunction(self.name, self.dtype, _address(self.address), self.address)
        self._enroll(function)


@dataclass(frozen=True, eq=False)
class TritonFunction(_OneDtype):
    """A value written as a device function of Triton, inlined into the kernel that evaluates it::

        @triton.jit
        def norm(state, present, columns):
            total = tl.zeros(state.shape, tl.float32)
            for d in range(columns):
                x = tl.load(state + d, mask=present, other=0.0)
                total += x * x
            return total

    Args:
        function: a ``triton.jit`` function of pointers ``[R]`` to the first number of each state, of whether there is such
            a state ``[R]``, and of how many numbers a state has. It returns float32 ``[R]``, for a state what depends on
            that state only; NaN is an error.
        dtype: of the states it reads: float32, float64, uint8, int32 or int64.
        python: the same on a tensor of states ``[n, columns]``, returning ``[n]``, for the ``"torch"`` backend; or None.
        name: for messages, tables and reports; None takes that of the function.
    """

    function: Any
    dtype: torch.dtype = torch.float32
    python: Callable[[Tensor], Tensor] | None = None
    name: str = ""
    kind: str = field(default="function", init=False, repr=False)
    _function: CompiledFunction = field(init=False, repr=False)
    _number: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._check_dtype()
        if not hasattr(self.function, "fn"):
            raise TypeError(
                f"function: expected a function decorated by triton.jit, got {type(self.function).__name__}"
            )
        object.__setattr__(self, "name", self.name or getattr(self.function, "__name__", "function"))
        function = CompiledFunction(
            self.name, self.dtype, 0, self.function, None if self.python is None else self._run, self.function
        )
        self._enroll(function)

    def _run(self, rows: Tensor) -> Tensor:
        assert self.python is not None
        return self.python(rows).to(torch.float32)


_CFunction: Any = ctypes.CFUNCTYPE(None).__mro__[1]


def _address(given: object) -> int:
    found: Any = getattr(given, "address", given)
    if isinstance(found, _CFunction):
        found = ctypes.cast(found, ctypes.c_void_p).value
    if not isinstance(found, int):
        raise TypeError(
            f"address: expected a whole number, a ctypes function or an object with .address, got {type(given).__name__}"
        )
    if found <= 0:
        raise ValueError(f"address: expected the address of a function, got {found}")
    return found


class PythonFunction(_Function):
    """What `value` makes of a Python function; it is compiled on first use, once for each dtype of states.

    Attributes:
        python: the function.
        batched: whether it takes all states at once.
        bounds_check: whether an index out of range is an error (else it reads other memory).
    """

    kind = "function"

    def __init__(self, python: Callable[..., Any], *, name: str | None, batched: bool, bounds_check: bool) -> None:
        if not callable(python):
            raise TypeError(f"value: expected a function, got {type(python).__name__}")
        self.python = python
        self.name = name or getattr(python, "__name__", type(python).__name__).strip("<>")
        self.batched = batched
        self.bounds_check = bounds_check
        self._numbers: dict[torch.dtype, int] = {}
        self._functions: list[CompiledFunction] = []

    def __repr__(self) -> str:
        return f"PythonFunction({self.name!r}, batched={self.batched})"

    def arguments(self, dtype: torch.dtype) -> tuple[list[Tensor], list[int]]:
        """Return the number of the function for states of a dtype, which may have to be compiled."""
        if dtype not in self._numbers:
            self._compile(dtype)
        return [], [self._numbers[dtype]]

    def _compile(self, dtype: torch.dtype) -> None:
        if dtype not in DTYPES:
            raise TypeError(f"{self.name}: states: expected one of {', '.join(map(str, DTYPES))}, got {dtype}")
        compiled = _compile(self.python, self.name, DTYPES[dtype], self.batched, self.bounds_check)
        function = CompiledFunction(self.name, dtype, compiled.address, compiled, self._run)
        self._functions.append(function)
        self._numbers[dtype] = enroll(function)

    def _run(self, rows: Tensor) -> Tensor:
        """Return the values of a few states by the function itself."""
        states = rows.numpy()
        states.flags.writeable = False
        out = np.full(len(states), math.nan, dtype=np.float32)
        with np.errstate(all="ignore"):
            if self.batched:
                self.python(states, out)
            else:
                for i, state in enumerate(states):
                    out[i] = self.python(state)
        return torch.from_numpy(out)


def _compile(python: Callable[..., Any], name: str, dtype: str, batched: bool, bounds_check: bool) -> Any:
    try:
        numba: Any = importlib.import_module("numba")
    except ImportError:
        raise BackendUnavailable(
            f"value '{name}': compiling a Python function needs numba; run `pip install \"fastguide[numba]\"`, or pass the "
            "function as a plain reward"
        ) from None
    scalar, types = getattr(numba, dtype), numba.types
    states = types.Array(scalar, 2 if batched else 1, "C", readonly=True)
    signature = (states, types.Array(numba.float32, 1, "C")) if batched else (states,)
    try:
        # Without parallel=True: numba's own thread pool would reset the number of torch's threads.
        compiled = numba.njit(signature, error_model="numpy", boundscheck=bounds_check)(python)
        pointers = (types.CPointer(scalar), numba.int64, numba.int64, types.CPointer(numba.float32))

        def whole(states: Any, rows: int, columns: int, out: Any) -> None:
            try:  # noqa: SIM105 - numba compiles no suppress()
                compiled(numba.carray(states, (rows, columns)), numba.carray(out, (rows,)))
            except Exception:
                pass

        def each(states: Any, rows: int, columns: int, out: Any) -> None:
            x = numba.carray(states, (rows, columns))
            y = numba.carray(out, (rows,))
            try:
                for i in range(rows):
                    y[i] = compiled(x[i])
            except Exception:
                pass

        return numba.cfunc(numba.void(*pointers), error_model="numpy")(whole if batched else each)
    except numba.core.errors.NumbaError as error:
        raise TypeError(
            f"value '{name}': numba cannot compile it for states of {dtype}: {error}\nUse numbers, numpy arrays and loops "
            "only, or pass the function as a plain reward"
        ) from error


@overload
def value(
    function: Callable[..., Any], *, name: str | None = None, batched: bool = False, bounds_check: bool = True
) -> PythonFunction: ...
@overload
def value(
    function: None = None, *, name: str | None = None, batched: bool = False, bounds_check: bool = True
) -> Callable[[Callable[..., Any]], PythonFunction]: ...
def value(
    function: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    batched: bool = False,
    bounds_check: bool = True,
) -> PythonFunction | Callable[[Callable[..., Any]], PythonFunction]:
    """Compile a Python function of a state, so that the kernels call it from all threads, without the interpreter.

    Use it as a decorator::

        @fg.value
        def alternation(x):  # one state: a 1-D array of its dtype, tokens or float32 numbers
            changes = 0
            for i in range(1, len(x)):
                changes += x[i] != x[i - 1]
            return changes / len(x)

        alternation(tokens)  # [N, L] -> float32 [N]; also reward=alternation, ops.evaluate(alternation, tokens)

    It is compiled by numba on first use, once a dtype of states (float32, float64, uint8, int32 or int64), with the
    arithmetic of numba: a result may differ in its last bits from what Python gives. What it reads from outside, such as
    numpy arrays, is frozen then. The states are read-only to it. It must return one number; what it raises, and NaN, is a
    `RewardError` that names it and the state.

    Args:
        function: takes a state, ``[N, ...]`` being flattened to a row, and returns a number.
        name: for messages, tables and reports; the function's own where None.
        batched: it takes states ``[n, columns]`` and a float32 array ``out`` ``[n]``, filled with NaN, to write into
            instead; n is a part of the batch.
        bounds_check: False makes indexing faster, and an index out of range read whatever is there.

    Raises:
        BackendUnavailable: on first use, where numba is not installed.
        TypeError: on first use, where numba cannot compile it.
    """

    def decorate(python: Callable[..., Any]) -> PythonFunction:
        return PythonFunction(python, name=name, batched=batched, bounds_check=bounds_check)

    return decorate if function is None else decorate(function)
