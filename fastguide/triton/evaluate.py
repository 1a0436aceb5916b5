"""``evaluate`` on the GPU: a state a lane, sums in the order and precision of the reference.

A function of the user's own is a ``triton.jit`` device function ``value(state, present, columns)``: pointers ``[R]`` to the
first number of each state, whether there is such a state, and how many numbers a state has. It returns float32 ``[R]`` and is
inlined.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from fastguide.triton._launch import EXACT, Variant, cdiv, power_of_two
from fastguide.triton._status import NEVER, RANGES, ROWS, report, trouble
from fastguide.triton.numerics.activation import NAMES, NONE, activate
from fastguide.triton.numerics.tokens import INVALID_VALUE, OUT_OF_RANGE
from fastguide.triton.tuning import Config, config, variants

_PARTIAL = tl.constexpr(8)


@triton.jit
def _sum_of_columns(x, weight, center, constant, n, present, columns, R: tl.constexpr):
    """Return float32 ``[R]``: of states ``n``, linear sums or, where there is a center, half of the squared ones."""
    sums = tl.zeros([R, _PARTIAL], tl.float64)
    for first in range(0, columns, _PARTIAL):
        d = first + tl.arange(0, _PARTIAL)[None, :]
        inside = present[:, None] & (d < columns)
        term = tl.load(x + n[:, None] * columns + d, mask=inside, other=0.0).to(tl.float64)
        factor = tl.load(weight + d, mask=d < columns, other=0.0).to(tl.float64)
        if center is not None:
            y = term - tl.load(center + d, mask=d < columns, other=0.0).to(tl.float64)
            term = y * y
        sums = tl.where(inside, sums + factor * term, sums)
    sums = tl.sum(tl.reshape(sums, [R, 2, 4]), 1)
    sums = tl.sum(tl.reshape(sums, [R, 2, 2]), 1)
    total = tl.sum(sums, 1)
    last = tl.load(constant).to(tl.float64)
    if center is not None:
        total = total * 0.5
    return (total + last).to(tl.float32)


@triton.jit
def _sum_columns(x, weight, center, constant, out, rows, columns, R: tl.constexpr):
    n = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    value = _sum_of_columns(x, weight, center, constant, n, n < rows, columns, R)
    tl.store(out + n, value, mask=n < rows)


@triton.jit
def evaluate_range(
    states, weight, center, constant, values, status, first, last, columns, FUNCTION: tl.constexpr, R: tl.constexpr
):
    """Write the values of states ``first`` to ``last - 1``, ``R`` at a time, of the dtype that ``values`` have.

    They are those of a function, or of columns where there is none; after a barrier the whole program sees them. NaN of a
    function goes into the status by the row.
    """
    worst = tl.full([R], NEVER, tl.int64)
    for begin in range(first, last, R):
        n = tl.arange(0, R).to(tl.int64) + begin
        present = n < last
        if FUNCTION is None:
            value = _sum_of_columns(states, weight, center, constant, n, present, columns, R)
        else:
            value = FUNCTION(states + n * columns, present, columns)
            worst = tl.minimum(worst, trouble(present & (value != value), n, INVALID_VALUE, ROWS))
        tl.store(values + n, value.to(values.dtype.element_ty), mask=present)
    if FUNCTION is not None:
        report(status, worst)


@triton.jit
def _layer(
    x, center, weight, bias, out, rows, inputs, outputs, ACTIVATION: tl.constexpr, R: tl.constexpr,
    W: tl.constexpr,
):  # fmt: skip
    """Write ``out`` ``[rows, outputs]``, ``weight`` transposed to ``[inputs, outputs]``, one input after the other."""
    n = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    o = tl.program_id(1) * W + tl.arange(0, W)
    y = tl.zeros([R, W], tl.float32)
    if bias is not None:
        y = y + tl.load(bias + o, mask=o < outputs, other=0.0)[None, :]
    for d in range(inputs):
        column = tl.load(x + n * inputs + d, mask=n < rows, other=0.0)
        if center is not None:
            column = column - tl.load(center + d)
        y = y + column[:, None] * tl.load(weight + d * outputs + o, mask=o < outputs, other=0.0)[None, :]
    inside = (n < rows)[:, None] & (o < outputs)[None, :]
    tl.store(out + n[:, None] * outputs + o[None, :], activate(y, ACTIVATION), mask=inside)


@triton.jit
def _add_products(x, center, product, constant, out, rows, columns, R: tl.constexpr):
    """Write the sums, in float64 and from left to right, of ``x``, or half of ``(x - center) * product`` and a constant."""
    n = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    total = tl.zeros([R], tl.float64)
    for d in range(columns):
        term = tl.load(x + n * columns + d, mask=n < rows, other=0.0)
        if product is None:
            total = total + term.to(tl.float64)
        else:
            other = tl.load(product + n * columns + d, mask=n < rows, other=0.0)
            total = total + (term - tl.load(center + d)).to(tl.float64) * other.to(tl.float64)
    if product is not None:
        total = total * 0.5 + tl.load(constant).to(tl.float64)
    tl.store(out + n, total.to(tl.float32), mask=n < rows)


@triton.jit
def _check_tokens(states, status, count, columns, vocab, T: tl.constexpr):
    flat = tl.program_id(0).to(tl.int64) * T + tl.arange(0, T)
    token = tl.load(states + flat, mask=flat < count, other=0).to(tl.int64)
    report(status, trouble((flat < count) & ((token < 0) | (token >= vocab)), flat, OUT_OF_RANGE, RANGES))


@triton.jit
def _token(states, n, d, inside, columns, vocab):
    """Return int64 tokens; one out of range, which `_check_tokens` reports, is read as 0."""
    token = tl.load(states + n * columns + d, mask=inside, other=0).to(tl.int64)
    return tl.where((token < 0) | (token >= vocab), 0, token)


@triton.jit
def _best_windows(states, scores, out, rows, columns, window, vocab, R: tl.constexpr, S: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    n = row[:, None]
    best = tl.full([R], float("-inf"), tl.float64)
    for first in range(0, columns - window + 1, S):
        start = first + tl.arange(0, S)[None, :]
        inside = (n < rows) & (start <= columns - window)
        total = tl.zeros([R, S], tl.float64)
        for k in range(window):
            token = _token(states, n, start + k, inside, columns, vocab)
            total = total + tl.load(scores + k * vocab + token).to(tl.float64)
        best = tl.maximum(best, tl.max(tl.where(inside, total, float("-inf")), 1))
    tl.store(out + row, best.to(tl.float32), mask=row < rows)


@triton.jit
def _count_motifs(states, table, out, rows, columns, motifs, R: tl.constexpr, S: tl.constexpr):
    """Count motifs; the table holds how many tokens each has, then their tokens."""
    row = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    n = row[:, None]
    total = tl.zeros([R], tl.int64)
    motif = tl.full([], 0, tl.int32) + motifs
    for m in range(motifs):
        size = tl.load(table + m)
        for first in range(0, columns - size + 1, S):
            start = first + tl.arange(0, S)[None, :]
            found = (n < rows) & (start <= columns - size)
            for k in range(size):
                token = tl.load(states + n * columns + start + k, mask=found, other=0).to(tl.int64)
                found = found & (token == tl.load(table + motif + k))
            total += tl.sum(found.to(tl.int64), 1)
        motif += size
    tl.store(out + row, total.to(tl.float32), mask=row < rows)


@triton.jit
def _potts_rows(states, fields, couplings, out, rows, columns, vocab, R: tl.constexpr, S: tl.constexpr):
    """Write ``[rows, columns]``: the field of each position and its couplings to those after it, in float32, in order."""
    n = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    n = n[:, None]
    first = tl.program_id(1) * S
    i = first + tl.arange(0, S)[None, :]
    inside = (n < rows) & (i < columns)
    at = _token(states, n, i, inside, columns, vocab)
    total = tl.load(fields + i * vocab + at, mask=inside, other=0.0)
    for j in range(first + 1, columns):
        other = _token(states, n, j, n < rows, columns, vocab)
        pair = inside & (i < j)
        place = ((i.to(tl.int64) * columns + j) * vocab + at) * vocab + other
        total = tl.where(pair, total + tl.load(couplings + place, mask=pair, other=0.0), total)
    tl.store(out + n * columns + i, total, mask=inside)


@triton.jit
def _call(states, out, status, rows, columns, FUNCTION: tl.constexpr, R: tl.constexpr):
    n = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    present = n < rows
    values = FUNCTION(states + n * columns, present, columns)
    report(status, trouble(present & (values != values), n, INVALID_VALUE, ROWS))
    tl.store(out + n, values, mask=present)


class RowValue(NamedTuple):
    """A value that `evaluate_range` computes, so that any kernel can.

    Attributes:
        weight, center, constant: of the kinds that add up columns, else None.
        function: of the user's own, else None.
    """

    weight: Tensor | None
    center: Tensor | None
    constant: Tensor | None
    function: Any


def row_value(kind: str, parameters: Sequence[Tensor], function: Any, device: torch.device) -> RowValue | None:
    """Return a value with its parameters on a device, None where it takes launches of its own."""
    if kind == "function":
        return RowValue(None, None, None, function)
    if kind not in ("linear", "diagonal_quadratic"):
        return None
    weight, *center, constant = (_beside(p, device, False) for p in parameters)
    return RowValue(weight, center[0] if center else None, constant, None)


def evaluate(
    kind: str,
    states: Tensor,
    parameters: Sequence[Tensor],
    settings: Sequence[int],
    function: Any,
    out: Tensor,
    status: Tensor,
) -> None:
    """Write the values ``out`` ``[rows]`` of states ``[rows, columns]``, all contiguous.

    Args:
        kind: one of ``KINDS`` of `fastguide.ops.evaluate`.
        states: of the dtype that the kind reads.
        parameters: as ``csrc/cpu/evaluate.h`` lists them, on any device; what is elsewhere is copied once.
        settings: as listed there.
        function: of the user's own, where ``kind`` is ``"function"``.
        out: float32.
        status: to lower: a token out of range by its flat index, NaN of a function by its row.
    """
    rows, columns = states.shape
    if rows == 0:
        return
    own = [_beside(p, states.device, False) for p in parameters]
    if kind in ("linear", "diagonal_quadratic"):
        weight, center, constant = (own[0], None, own[1]) if kind == "linear" else own
        few, warps = config("evaluate._sum_columns", rows, states.device)
        _sum_columns[(cdiv(rows, few),)](
            states, weight, center, constant, out, rows, columns, R=few, num_warps=warps, **EXACT
        )
    elif kind == "quadratic":
        product = torch.empty_like(states)
        transposed = _beside(parameters[0], states.device, True)
        _launch_layer(states, own[1], transposed, None, product, NONE.value)
        _add(states, own[1], product, own[2], out)
    elif kind == "mlp":
        x = states
        for layer in range(0, len(own), 2):
            last = layer + 2 == len(own)
            y = out.view(rows, 1) if last else states.new_empty(rows, len(own[layer]))
            transposed = _beside(parameters[layer], states.device, True)
            _launch_layer(x, None, transposed, own[layer + 1], y, NONE.value if last else settings[0])
            x = y
    elif kind == "function":
        few, warps = config("evaluate._call", rows, states.device)
        _call[(cdiv(rows, few),)](
            states, out, status, rows, columns, FUNCTION=function, R=few, num_warps=warps, **EXACT
        )
    else:
        _launch_tokens(kind, states, own, settings, out, status)


def _launch_tokens(
    kind: str, states: Tensor, own: Sequence[Tensor], settings: Sequence[int], out: Tensor, status: Tensor
) -> None:
    rows, columns = states.shape
    vocab = settings[1] if kind == "position_weights" else settings[0]
    tile, warps = config("evaluate._check_tokens", states.numel(), states.device)
    _check_tokens[(cdiv(states.numel(), tile),)](
        states, status, states.numel(), columns, vocab, T=tile, num_warps=warps
    )
    if kind == "position_weights":
        wide = _starts_tile(config("evaluate._best_windows", rows, states.device), columns)
        grid = (cdiv(rows, wide["R"]),)
        _best_windows[grid](states, own[0], out, rows, columns, settings[0], vocab, **wide, **EXACT)
    elif kind == "motif_count":
        table = _table(tuple(settings[2:]), states.device)
        wide = _starts_tile(config("evaluate._count_motifs", rows, states.device), columns)
        grid = (cdiv(rows, wide["R"]),)
        _count_motifs[grid](states, table, out, rows, columns, settings[1], **wide, **EXACT)
    else:
        sums = torch.empty((rows, columns), dtype=torch.float32, device=states.device)
        wide = _starts_tile(config("evaluate._potts_rows", rows, states.device), columns)
        _potts_rows[(cdiv(rows, wide["R"]), cdiv(columns, wide["S"]))](
            states, own[0], own[1], sums, rows, columns, vocab, **wide, **EXACT
        )
        _add(sums, None, None, None, out)


def _starts_tile(chosen: Config, columns: int) -> dict[str, int]:
    starts = min(32, power_of_two(max(columns, 1)))
    return {"R": max(1, chosen.tile // starts), "S": starts, "num_warps": chosen.warps}


def _add(x: Tensor, center: Tensor | None, product: Tensor | None, constant: Tensor | None, out: Tensor) -> None:
    rows, columns = x.shape
    few, warps = config("evaluate._add_products", rows, x.device)
    grid = (cdiv(rows, few),)
    _add_products[grid](x, center, product, constant, out, rows, columns, R=few, num_warps=warps, **EXACT)


def _launch_layer(
    x: Tensor, center: Tensor | None, weight: Tensor, bias: Tensor | None, out: Tensor, activation: int
) -> None:
    (rows, inputs), outputs = x.shape, out.shape[1]
    tile = _layer_tile(config("evaluate._layer", rows, x.device), outputs)
    _layer[(cdiv(rows, tile["R"]), cdiv(outputs, tile["W"]))](
        x, center, weight, bias, out, rows, inputs, outputs, ACTIVATION=activation, **tile, **EXACT
    )


def _layer_tile(chosen: Config, outputs: int) -> dict[str, int]:
    width = min(64, power_of_two(outputs))
    return {"R": max(16, chosen.tile // width), "W": width, "num_warps": chosen.warps}


_copies: WeakIdKeyDictionary = WeakIdKeyDictionary()


def _beside(parameter: Tensor, device: torch.device, transposed: bool) -> Tensor:
    """Return a parameter, contiguous or transposed, on a device: a copy made once, as a captured graph needs."""
    if parameter.device == device and not transposed:
        return parameter.contiguous()
    copies = _copies.setdefault(parameter, {})
    key = (device, transposed, 0 if parameter.is_inference() else parameter._version)
    if key not in copies:
        copies[key] = (parameter.t() if transposed else parameter).contiguous().to(device)
    copy: Tensor = copies[key]
    return copy


@functools.lru_cache(maxsize=256)
def _table(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int32, device=device)


@triton.jit
def _first_number(state, present, columns):
    return tl.load(state, mask=present, other=0.0)


def _rows_variants(kernel: Any, types: str, label: str = "", **constants: Any) -> list[Variant]:
    return variants(kernel, lambda c: Variant(kernel, types, {"R": c.tile, **constants}, c.warps, label))


def _tile_variants(kernel: Any, types: str, tile: Any, size: int, label: str = "", **constants: Any) -> list[Variant]:
    def make(c: Config) -> Variant:
        sizes = tile(c, size)
        warps = sizes.pop("num_warps")
        return Variant(kernel, types, {**sizes, **constants}, warps, label)

    return variants(kernel, make)


def _variants() -> list[Variant]:
    out = "*fp32 i32 i32"
    found = [
        *_rows_variants(_sum_columns, f"*fp32 *fp32 *fp32 {out}", "linear", center=None),
        *_rows_variants(_sum_columns, f"*fp32 *fp32 *fp32 *fp32 {out}", "quadratic"),
        *_rows_variants(_add_products, f"*fp32 *fp32 *fp32 *fp32 {out}"),
        *variants(_check_tokens, lambda c: Variant(_check_tokens, "*i64 *i64 i32 i32 i32", {"T": c.tile}, c.warps)),
        *_tile_variants(_best_windows, f"*i64 *fp32 {out} i32 i32", _starts_tile, 76),
        *_tile_variants(_count_motifs, f"*i64 *i32 {out} i32", _starts_tile, 76),
        *_tile_variants(_potts_rows, f"*i64 *fp32 *fp32 {out} i32", _starts_tile, 76),
        *_rows_variants(_call, "*fp32 *fp32 *i64 i32 i32", FUNCTION=_first_number),
    ]
    for activation, label in enumerate((*NAMES, "last")):
        types = f"*fp32 *fp32 *fp32 {out} i32"
        found += _tile_variants(_layer, types, _layer_tile, 64, label, center=None, ACTIVATION=activation)
    return found


VARIANTS = _variants()
