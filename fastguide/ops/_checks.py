"""Checks of arguments that operations share. Messages name the argument, what came and what to do."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any, NoReturn

import torch
from torch import Tensor

from fastguide.errors import DegenerateWeights
from fastguide.ops import _native
from fastguide.reference.exp import MAX_LOG_WEIGHT
from fastguide.reference.philox import expand_seed

INT32_MAX = 2**31 - 1
FLOATS = (torch.float32, torch.float64)
RULES = ("systematic", "stratified", "multinomial", "residual", "argmax", "topk", "gumbel_topk")
RANKED = ("topk", "gumbel_topk")
"""Rules that take distinct items, hence need as many of nonzero weight as they draw."""


def float_tensor(name: str, x: object) -> Tensor:
    """Return ``x`` if it is a float32 or float64 tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}; use torch.as_tensor")
    if x.dtype not in FLOATS:
        raise TypeError(f"{name}: expected float32 or float64, got {x.dtype}; convert with .float()")
    return x


def count(name: str, value: object) -> int:
    """Return ``value`` as a positive integer that fits 32 bits."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected a whole number, got {value!r}")
    n = operator.index(value)
    if not 1 <= n <= INT32_MAX:
        raise ValueError(f"{name}: expected a whole number in [1, 2^31 - 1], got {n}")
    return n


def choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raise unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name}: unknown value {value!r}; choose one of {', '.join(allowed)}")


def step(value: int) -> None:
    """Raise unless ``value`` is a step that the random counter can hold."""
    if not isinstance(value, int) or not 0 <= value < 2**28:
        raise ValueError(f"step: expected a whole number in [0, 2^28), got {value!r}")


def step_or_tensor(value: int | Tensor, like: Tensor) -> tuple[Tensor | None, int]:
    """Return ``(steps, 0)`` for a tensor of one step on the device of ``like``, unread, and ``(None, step)`` for a step."""
    if not isinstance(value, Tensor):
        step(value)
        return None, value
    if value.dtype != torch.int64 or value.numel() != 1:
        raise TypeError(
            f"step: expected a whole number or an int64 tensor of one, got {value.dtype} of shape {list(value.shape)}"
        )
    if value.device != like.device:
        raise ValueError(f"step: on {value.device}, but the inputs are on {like.device}")
    return value, 0


def step_for(backend: str, steps: Tensor | None, number: int) -> Any:
    """Return the step as a backend takes it: of a tensor, kernels of a GPU read it themselves."""
    if steps is None:
        return number
    if backend in ("triton", "cuda"):
        return steps
    read = int(steps)
    step(read)
    return read


def seed(value: object, groups: int, device: torch.device) -> tuple[Tensor | None, int]:
    """Return ``(seeds, 0)`` for a tensor of seeds, ``(None, seed)`` for one integer, as 64 signed bits.

    A tensor of no dimension is one integer, and expanded where it is.
    """
    if isinstance(value, int):
        if not 0 <= value < 2**64:
            raise ValueError(f"seed: expected a whole number in [0, 2^64), got {value}")
        return None, value - 2**64 if value >= 2**63 else value
    if not isinstance(value, Tensor):
        if hasattr(value, "__index__"):
            return seed(operator.index(value), groups, device)
        raise TypeError(f"seed: expected a whole number or an int64 tensor [G], got {type(value).__name__}")
    if value.dtype != torch.int64:
        raise TypeError(f"seed: expected an int64 tensor, got {value.dtype}; convert with .to(torch.int64)")
    if value.dim() == 0 and value.device == device:
        return expand_seed(value, groups, device), 0
    if value.shape != (groups,):
        raise ValueError(f"seed: expected shape ({groups},), one seed a group, got {tuple(value.shape)}")
    if value.device != device:
        raise ValueError(f"seed: expected a tensor on {device}, where the log-weights are, got {value.device}")
    return value, 0


def on_cpu(name: str, x: Tensor) -> None:
    """Raise unless ``x`` is on the CPU."""
    if not x.is_cpu:
        raise ValueError(f'{name}: backend "cpu" needs tensors on the CPU, got {x.device}; use backend="torch"')


def output(name: str, x: object, shape: tuple[int, ...], dtype: torch.dtype, like: Tensor) -> None:
    """Raise unless ``x`` is a tensor, on the device of ``like``, that a kernel can write as it is."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(x).__name__}")
    if x.dtype is not dtype:
        raise TypeError(f"{name}: expected {dtype}, got {x.dtype}")
    if x.shape != shape:
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(x.shape)}")
    # A compiled function writes by copy_, which minds the flag of a negated view; it cannot ask for it.
    if not x.is_contiguous() or (not torch.compiler.is_compiling() and x.is_neg()):
        raise ValueError(f"{name}: expected a contiguous tensor, got strides {x.stride()}; pass its .contiguous()")
    if not (x.is_cpu and like.is_cpu) and x.device != like.device:
        raise ValueError(f"{name}: expected a tensor on {like.device}, where the inputs are, got {x.device}")
    if x.requires_grad:
        raise ValueError(f"{name}: requires gradients, which are not recorded; pass its .detach()")


def apart(name: str, written: Iterable[Tensor], inputs: Iterable[Tensor | None]) -> None:
    """Raise where a tensor to be written shares memory with an input or with another."""
    if _native.overlapping(written, inputs):
        raise ValueError(f"{name}: must not overlap an input or itself; pass memory of its own")


def position(flat: int, shape: torch.Size) -> str:
    """Return the index of element ``flat`` of a tensor ``[M]``, ``[G, M]`` or ``[G, P, M]`` in words."""
    names = {1: ("index",), 2: ("group", "index"), 3: ("group", "parent", "index")}[len(shape)]
    where = []
    for size in reversed(shape):
        flat, i = divmod(flat, size)
        where.append(i)
    return ", ".join(f"{name} {i}" for name, i in zip(names, reversed(where), strict=True))


def refuse_element(name: str, x: Tensor, flat: int) -> NoReturn:
    """Raise for element ``flat`` of ``x``, which is NaN, +inf or too large."""
    value = float(x.reshape(-1)[flat])
    raise ValueError(
        f"{name}: {value} at {position(flat, x.shape)} of shape {tuple(x.shape)}; log-weights must not be NaN, +inf or "
        f"above {MAX_LOG_WEIGHT:.0e} (-inf is a weight of zero)"
    )


def first_refused(x: Tensor) -> int | None:
    """Return the flat index of the first element that is NaN, +inf or above 1e9, or None."""
    bad = ~(x <= MAX_LOG_WEIGHT).reshape(-1)
    return int(bad.to(torch.uint8).argmax()) if bool(bad.any()) else None


def lacking_rows(log_weights: Tensor, rule: str, k: int) -> list[int]:
    """Return the rows of ``[..., M]`` that have fewer items of nonzero weight than ``rule`` needs."""
    alive = (log_weights >= -MAX_LOG_WEIGHT).sum(-1).reshape(-1)
    lacking: list[int] = (alive < (k if rule in RANKED else 1)).nonzero().flatten().tolist()
    return lacking


def raise_without_weight(name: str, what: str, rows: list[int], shape: torch.Size) -> NoReturn:
    """Raise `DegenerateWeights` naming the groups, and parents, of rows of ``[M]``, ``[G, M]`` or ``[G, P, M]``."""
    parents = shape[1] if len(shape) == 3 else 1
    shown = [f"group {row // parents}" + (f" parent {row % parents}" if len(shape) == 3 else "") for row in rows[:5]]
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    raise DegenerateWeights(
        f'{name}: {what} in {", ".join(shown)}{more} of shape {tuple(shape)}; pass degenerate="keep" to let the other '
        "groups go on",
        tuple(dict.fromkeys(row // parents for row in rows)),
    )


def raise_degenerate(log_weights: Tensor, rule: str, k: int) -> NoReturn:
    """Raise `DegenerateWeights` for the rows that lack weight for ``k`` draws by ``rule``."""
    what = (
        f'fewer than the {k} items of nonzero weight that rule="{rule}" needs'
        if rule in RANKED
        else "every weight is zero"
    )
    raise_without_weight("log_weights", what, lacking_rows(log_weights, rule, k), log_weights.shape)
