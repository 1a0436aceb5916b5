"""What kernels over particles share: the state, group and number of a particle, and how large tiles and grids are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl

from fastguide.triton import _launch
from fastguide.triton.numerics.philox import expand_seed
from fastguide.triton.tuning import Config, variants

_PROGRAMS_A_PROCESSOR = 8
_MOST_POSITIONS = 4096
"""Positions beyond which a row takes a program of more warps."""


@triton.jit
def state_of(ancestors, p, present):
    """Return the int64 row of tokens that particles continue."""
    if ancestors is None:
        return p
    else:
        return tl.load(ancestors + p, mask=present, other=0).to(tl.int64)


@triton.jit
def number_of(slots, p, per_group, present):
    """Return the int64 number of particles within their groups."""
    if slots is None:
        return p % per_group
    else:
        return tl.load(slots + p, mask=present, other=0).to(tl.int64)


@triton.jit
def seed_of(seeds, seed, group, present):
    """Return the int64 seed of groups, from a tensor or from one integer."""
    if seeds is None:
        return expand_seed(seed, group)
    else:
        return tl.load(seeds + group, mask=present, other=0)


@triton.jit
def coefficient(coefficients, number, i: tl.constexpr, groups, group, present):
    """Return float32 ``[P, 1]``: coefficient ``i`` of groups, from ``[4, G]``, or one for all, a number or where it is."""
    if coefficients is not None:
        return tl.load(coefficients + i * groups + group, mask=present, other=0.0)[:, None]
    elif isinstance(number, float):  # as the interpreter hands it on
        return tl.zeros([group.shape[0], 1], tl.float32) + number
    elif number.dtype.is_ptr():
        return tl.zeros([group.shape[0], 1], tl.float32) + tl.load(number).to(tl.float32)
    else:
        return tl.zeros([group.shape[0], 1], tl.float32) + number


@triton.jit
def append(listed, listed_count, entries, wanted, size: tl.constexpr):
    """Append the entries of a tile that are wanted (int32 1, else 0) to a list, in an order of no consequence."""
    flat = tl.reshape(wanted, [size])
    total = tl.sum(flat, 0)
    first = tl.atomic_add(listed_count, total.to(tl.int64), mask=total > 0)
    tl.store(listed + first + tl.cumsum(flat, 0) - 1, tl.reshape(entries, [size]), mask=flat != 0)


_TYPES = {
    "status": "*i64", "ancestors": "*i64", "slots": "*i64", "seeds": "*i64", "lengths": "*i64", "counts": "*i64",
    "tokens": "*i64", "children": "*i64", "logits": "*fp32", "bias": "*fp32", "shift": "*fp32", "coefficients": "*fp32",
    "listed": "*i32", "listed_count": "*i64", "ranks": "*i64", "needed": "*i32", "frozen": "*u8", "terms": "*fp64",
    "ratios": "*fp64", "x": "*fp32", "prediction": "*fp32", "number_x": "fp32", "number_prediction": "fp32",
    "number_shift": "fp32", "number_sigma": "fp32", "inverse_temperature": "fp32", "top_p": "i64", "most_slot": "i64",
    "reveal": "i64", "remask": "i64", "states": "i32",
}  # fmt: skip


def variant(kernel: Any, constants: dict[str, Any], warps: int, label: str, **types: str) -> _launch.Variant:
    """Return a variant of a kernel over particles, whose arguments are typed by their names; int32 where not said."""
    known = _TYPES | types
    names = (name for name in kernel.arg_names if name not in constants)
    return _launch.Variant(kernel, " ".join(known.get(name, "i32") for name in names), constants, warps, label)


def variants_of(
    kernel: Any, tile: Callable[[Config], dict[str, int]], constants: dict[str, Any], label: str = "", **types: str
) -> list[_launch.Variant]:
    """Return a `variant` for each configuration; ``tile`` makes one the constants of a launch and ``num_warps``."""

    def make(chosen: Config) -> _launch.Variant:
        sizes = tile(chosen)
        warps = sizes.pop("num_warps")
        return variant(kernel, sizes | constants, warps, label, **types)

    return variants(kernel, make)


def position_tile(chosen: Config, length: int, *, whole: bool = False) -> dict[str, int]:
    """Return the particles P and positions L of a program, of rows of ``length``, which must be there ``whole`` or not."""
    positions = max(4, _launch.power_of_two(length if whole else min(length, chosen.tile)))
    warps = chosen.warps if positions <= _MOST_POSITIONS else max(chosen.warps, 16)
    return {"P": max(1, chosen.tile // positions), "L": positions, "num_warps": warps}


def programs(most: int, device: torch.device) -> int:
    """Return how many programs share work whose amount only the device knows, and that ``most`` could have a part of."""
    processors = 1 if device.type == "cpu" else _processors(device)
    return max(1, min(most, _PROGRAMS_A_PROCESSOR * processors))


@functools.cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
