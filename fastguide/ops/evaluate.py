"""Values of a batch of states by a function that needs no interpreter: one pass over the states, in all threads."""

from __future__ import annotations

import math
from typing import Any, NamedTuple, NoReturn, Protocol

import torch
from torch import Tensor

from fastguide import config
from fastguide.errors import BackendUnavailable, RewardError
from fastguide.ops import _arrays, _checks, _functions, _library, _native, _triton
from fastguide.reference import evaluate as _reference
from fastguide.reference.activation import ACTIVATIONS

KINDS = (
    "linear", "diagonal_quadratic", "quadratic", "mlp", "position_weights", "motif_count", "potts", "function",
)  # fmt: skip
"""Kinds of values, in the order of their numbers in the kernels."""
FLOAT_KINDS = ("linear", "diagonal_quadratic", "quadratic", "mlp")
TOKEN_KINDS = ("position_weights", "motif_count", "potts")
TOKENS = (torch.int64, torch.int32, torch.uint8)


class CompiledValue(Protocol):
    """What `evaluate` asks of a value; `fastguide.values.compiled` holds them.

    Attributes:
        name: for messages.
    """

    name: str

    @property
    def kind(self) -> str:
        """One of `KINDS`."""

    def check_columns(self, columns: int) -> None:
        """Raise ValueError unless a state may have that many numbers or tokens."""

    def arguments(self, dtype: torch.dtype) -> tuple[list[Tensor], list[int]]:
        """Return what the kernel reads for states of a dtype, as ``csrc/cpu/evaluate.h`` lists it."""


def evaluate(value: CompiledValue, states: Tensor, *, backend: str | None = None) -> Tensor:
    """Evaluate a compiled value on every state.

    A state's value depends on that state only, and the built-in kinds give the same bits at every SIMD level and with
    any number of threads: their sums run in the order, and in the precision, that their docstrings state.

    Args:
        value: one of `fastguide.values.compiled`, or a function made by `fastguide.value`.
        states: float32 ``[N, ...]``, or tokens ``[N, L]`` of int64, int32 or uint8, as the value demands.
        backend: ``"cpu"``, ``"triton"`` or ``"torch"`` (the reference, which runs a Python function row by row); None
            chooses by device and `fastguide.config`. A function given by its address has one implementation, called by
            ``"cpu"`` and ``"torch"``; one for Triton has none on the CPU but the Python function given with it.

    Returns:
        float32 ``[N]``. NaN where the arithmetic of a built-in kind gives NaN (only from states that hold NaN or
        infinities, or overflow).

    Raises:
        ValueError: a wrong shape, or a token that the value does not score, such as the mask.
        TypeError: a wrong dtype, or ``value`` is no compiled value.
        RewardError: a function raised, or returned NaN; ``.sample`` is the state.
        BackendUnavailable: a function has no implementation for the backend.
    """
    if type(states) is not Tensor and _arrays.is_foreign(states):
        return _arrays.in_torch(evaluate, states, locals())
    launch = _op if torch.compiler.is_compiling() else launch_evaluation
    values: Tensor = launch(*prepare(value, states), backend)
    return values


def _check_states(value: CompiledValue, states: object) -> None:
    name = value.name
    if not isinstance(states, Tensor):
        raise TypeError(f"{name}: states: expected a torch.Tensor, got {type(states).__name__}; use torch.as_tensor")
    if value.kind in FLOAT_KINDS and states.dtype != torch.float32:
        raise TypeError(f"{name}: states: expected float32, got {states.dtype}; convert with .float()")
    if value.kind in TOKEN_KINDS:
        if states.dtype not in TOKENS:
            raise TypeError(f"{name}: states: expected tokens of int64, int32 or uint8, got {states.dtype}")
        if states.dim() != 2:
            raise ValueError(f"{name}: states: expected tokens [N, L], got shape {tuple(states.shape)}")
    if states.dim() < 1:
        raise ValueError(f"{name}: states: expected shape [N, ...], got a scalar")
    value.check_columns(math.prod(states.shape[1:]))


class Evaluation(NamedTuple):
    """A value and the states that it is wanted of, checked: what the registered operations take of them."""

    states: Tensor
    kind: str
    parameters: list[Tensor]
    settings: list[int]

    def on_device(self) -> tuple[str, Tensor, list[Tensor], list[int], Any]:
        """Return kind, states ``[rows, columns]``, parameters, settings and function as the Triton kernels take them."""
        return self.kind, _rows(self.states), self.parameters, self.settings, self.device_function()

    def device_function(self) -> Any:
        """Return the function that Triton calls, None where there is none."""
        return _functions.find(self.settings[0]).device if self.kind == "function" else None

    def native(self) -> tuple[int, Tensor, list[Tensor], list[int]]:
        """Return the number of the kind, states ``[rows, columns]``, parameters and settings as the kernels read them."""
        states, kind, parameters, settings = self
        if kind == "function":
            function = _functions.find(settings[0])
            if function.address == 0:
                _refuse_backend(function, "cpu")
            settings = [function.address]
        return KINDS.index(kind), _rows(states), [p.contiguous() for p in parameters], settings


def _rows(states: Tensor) -> Tensor:
    return _native.plain(states.detach()).view(len(states), math.prod(states.shape[1:]))


def prepare(value: CompiledValue, states: Tensor) -> Evaluation:
    """Check a value and its states."""
    kind = getattr(value, "kind", None)
    if kind not in KINDS:
        raise TypeError(
            f"value: expected one of fastguide.values.compiled or a function made by fastguide.value, got "
            f"{type(value).__name__}"
        )
    _check_states(value, states)
    return Evaluation(states, kind, *value.arguments(states.dtype))


def launch_evaluation(
    states: Tensor, kind: str, parameters: list[Tensor], settings: list[int], backend: str | None
) -> Tensor:
    """Compute the values ``[N]`` of an `Evaluation`."""
    rows = _rows(states)
    function = _functions.find(settings[0]) if kind == "function" else None
    asked, backend = backend, config.choose_backend(states.device, backend)
    if asked is None and backend == "triton" and function is not None and function.device is None:
        backend = "torch"  # what a GPU cannot call, Python may
    if backend == "torch" and (function is None or function.python is not None):
        return _refer(rows, kind, [p.to(states.device) for p in parameters], settings, function)
    out = torch.empty(len(rows), dtype=torch.float32, device=states.device)
    if len(rows) == 0:
        return out
    if backend == "triton":
        if function is not None and function.device is None:
            _refuse_backend(function, backend)
        device = None if function is None else function.device
        code, index = _triton.run("evaluate", states, kind, rows, parameters, settings, device, out)
    else:
        _checks.on_cpu("states", states)
        code, index = _native.evaluate(*Evaluation(rows, kind, parameters, settings).native(), out)
    if code == _native.OUT_OF_MEMORY:
        raise MemoryError("evaluate: no memory for its workspace; evaluate fewer columns or a narrower network")
    if code == _native.OUT_OF_RANGE:
        _refuse_token(rows, index, _vocab(kind, settings))
    if code == _native.INVALID_VALUE:
        assert function is not None
        _refuse_row(function, rows, index)
    return out


def _refer(
    rows: Tensor,
    kind: str,
    parameters: list[Tensor],
    settings: list[int],
    function: _functions.CompiledFunction | None,
) -> Tensor:
    if function is not None:
        assert function.python is not None
        each = [_one_row(function, rows, i) for i in range(len(rows))]
        return torch.cat(each).to(rows.device) if each else rows.new_empty(0, dtype=torch.float32)
    if kind in TOKEN_KINDS:
        outside = _reference.first_outside(rows, _vocab(kind, settings))
        if outside is not None:
            _refuse_token(rows, outside, _vocab(kind, settings))
    if kind == "mlp":
        return _reference.mlp(rows, parameters, list(ACTIVATIONS)[settings[0]])
    if kind == "motif_count":
        lengths = settings[2 : 2 + settings[1]]
        tokens = iter(settings[2 + settings[1] :])
        return _reference.motif_count(rows, [[next(tokens) for _ in range(n)] for n in lengths])
    values: Tensor = getattr(_reference, kind)(rows, *parameters)
    return values


def _refuse_backend(function: _functions.CompiledFunction, backend: str) -> NoReturn:
    advice = (
        "states on a GPU need a TritonFunction, or are brought to the CPU"
        if backend == "triton"
        else 'states on the CPU need a function made by fastguide.value, or python= and backend="torch"'
    )
    raise BackendUnavailable(f"value '{function.name}': has no implementation for backend \"{backend}\"; {advice}")


def _vocab(kind: str, settings: list[int]) -> int:
    return settings[1] if kind == "position_weights" else settings[0]


def _refuse_token(rows: Tensor, flat: int, vocab: int) -> NoReturn:
    row, position = divmod(flat, rows.shape[1])
    raise ValueError(
        f"states[{row}, {position}] is {int(rows[row, position])}; expected a token 0 to {vocab - 1} (a masked position "
        "has no value)"
    )


def _one_row(function: _functions.CompiledFunction, rows: Tensor, i: int) -> Tensor:
    """Return the value ``[1]`` of row ``i`` by the Python function, or raise what it fails with, as a RewardError."""
    assert function.python is not None
    try:
        value = function.python(rows[i : i + 1].cpu())
    except Exception as error:
        raise RewardError(
            f"value '{function.name}': raised {type(error).__name__}: {error} for states[{i}] = {_show(rows[i])}",
            rows[i],
        ) from error
    if bool(value.isnan()):
        raise RewardError(f"value '{function.name}': returned nan for states[{i}] = {_show(rows[i])}", rows[i])
    return value


def _refuse_row(function: _functions.CompiledFunction, rows: Tensor, i: int) -> NoReturn:
    if function.python is not None:
        _one_row(function, rows, i)
    raise RewardError(
        f"value '{function.name}': wrote no number for states[{i}] = {_show(rows[i])}: it failed there, or gave nan",
        rows[i],
    )


def _show(row: Tensor) -> str:
    text = str(row.tolist())
    return text if len(text) <= 200 else text[:197] + "..."


def _fake(states: Tensor, kind: str, parameters: list[Tensor], settings: list[int], backend: str | None) -> Tensor:
    return states.new_empty(states.shape[0], dtype=torch.float32)


_op = _library.register(
    "evaluate(Tensor states, str kind, Tensor[] parameters, int[] settings, str? backend) -> Tensor",
    launch_evaluation,
    _fake,
)
