"""``reweight_select`` in Triton: weight update and adaptive resampling, decided on the device group by group.

Groups of one block take one launch. Longer ones five: the update with the sums of blocks, one scale a group, the ends of
slots, the copies to spare, and at last the particles follow their ancestors. Values that are functions of a state are computed
in the first launch where that pays: each once, into memory, as the last stage moves them from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastguide.triton import _blocks
from fastguide.triton._blocks import ACTIVE, FIELDS, refuse, slot_ancestors, weigh_block
from fastguide.triton._launch import DEGENERATE, EXACT, NEVER, Variant, cdiv, interpreted, power_of_two
from fastguide.triton._rows import MULTINOMIAL, RESIDUAL, draw_rows, fold_rows
from fastguide.triton.evaluate import RowValue, evaluate, evaluate_range, row_value
from fastguide.triton.numerics.selection import BLOCK, usable
from fastguide.triton.seeds import group_seeds
from fastguide.triton.select import held, rows_of, warps_of
from fastguide.triton.tuning import Config, config, variants

FILLING = 256
"""Programs that keep all multiprocessors of a large GPU busy."""
LAUNCH_BYTES = 2**16
"""What one multiprocessor reads in the 2 to 3 us of a launch, at its share of the bandwidth."""
_COLUMNS_A_WARP = 16
"""States of which a warp adds up columns at a time in `reweight_rows`: with 32, as elsewhere, registers spill."""
_DEGENERATE = tl.constexpr(DEGENERATE)
_NEVER = tl.constexpr(NEVER)


@triton.jit
def reweigh(log_weights, values, previous_values, log_ratio, beta, previous_beta, at, inside):
    """Return updated log-weights, ``-inf`` outside, and where an input or the update is refused.

    Args:
        log_ratio: a pointer, or None.
        beta, previous_beta: in the dtype of the log-weights.
    """
    x = tl.load(log_weights + at, mask=inside, other=float("-inf"))
    value = tl.load(values + at, mask=inside, other=0.0)
    previous = tl.load(previous_values + at, mask=inside, other=0.0)
    update = beta * value - previous_beta * previous
    dead = (x == float("-inf")) | (value == float("-inf"))
    fine = (x < float("inf")) & (value < float("inf")) & (previous < float("inf"))
    if log_ratio is not None:
        ratio = tl.load(log_ratio + at, mask=inside, other=0.0)
        update = update + ratio
        dead = dead | (ratio == float("-inf"))
        fine = fine & (ratio < float("inf"))
    updated = tl.where(dead, float("-inf"), x + update)
    return updated, inside & ((fine & (updated <= 1e9)) == 0)


@triton.jit
def _of_rows(numbers, number, row, there):
    """Return what rows have of float64 numbers, or the one that all have."""
    if numbers is None:
        return tl.full([], number, tl.float64)
    else:
        return tl.load(numbers + row, mask=there, other=0.0)


@triton.jit(do_not_specialize=["step"])
def reweight_rows(
    log_weights, values, previous_values, log_ratio, moving, betas, previous_betas, seeds, step, new_log_weights,
    new_values, moved, ancestors, resampled, log_z_increment, ess, running, ends, status, rows, m, bits,
    threshold: tl.float64, one_beta: tl.float64, one_previous_beta: tl.float64, states, weight, center, constant, columns,
    FUNCTION: tl.constexpr, LANES: tl.constexpr, RULE: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """One program ``ROWS`` groups of at most one block, whose values it first writes where there are states."""
    if states is not None:
        first = tl.program_id(0).to(tl.int64) * ROWS
        last = tl.minimum(first + ROWS, rows)
        evaluate_range(states, weight, center, constant, values, status, first * m, last * m, columns, FUNCTION, LANES)
        tl.debug_barrier()
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    item = tl.arange(0, WIDTH)[None, :]
    there = row < rows
    inside = there & (item < m)
    start = tl.minimum(row, rows - 1) * m
    real = log_weights.dtype.element_ty
    beta = _of_rows(betas, one_beta, row, there).to(real)
    previous_beta = _of_rows(previous_betas, one_previous_beta, row, there).to(real)
    updated, bad = reweigh(log_weights, values, previous_values, log_ratio, beta, previous_beta, start + item, inside)
    refuse(bad, start + item, status)
    points, total, largest, mean, size = fold_rows(usable(updated), m)
    again = (total > 0) & (size < threshold)
    ancestor = item + row * 0
    if tl.max((again & there).to(tl.int32)) > 0:
        seed = tl.load(seeds + row, mask=there, other=0)
        drawn = draw_rows(
            points, total, largest, row, rows, m, m, bits, seed, row * 0, step, running, ends, RULE, True, WIDTH
        )
        ancestor = tl.where(again, drawn, ancestor)
        updated = tl.where(again, 0.0, updated)
    tl.store(new_log_weights + start + item, updated, mask=inside)
    tl.store(ancestors + start + item, ancestor.to(tl.int32), mask=inside)
    tl.store(new_values + start + item, tl.load(values + start + ancestor, mask=inside), mask=inside)
    if moving is not None:
        tl.store(moved + start + item, tl.load(moving + start + ancestor, mask=inside), mask=inside)
    tl.store(resampled + row, again, mask=there)
    tl.store(log_z_increment + row, tl.where(again | (total == 0), mean, 0.0), mask=there)
    tl.store(ess + row, size, mask=there)
    first = tl.min(tl.where((total == 0) & there, row, _NEVER))
    if first != _NEVER:
        tl.atomic_min(status + _DEGENERATE, first, sem="relaxed")


@triton.jit
def reweigh_blocks(
    log_weights, values, previous_values, log_ratio, betas, previous_betas, updated_log_weights, exponents, sums, squares,
    tops, firsts, alive, status, m, blocks, one_beta: tl.float64, one_previous_beta: tl.float64, states, weight, center,
    constant, columns, FUNCTION: tl.constexpr, LANES: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One program a block: the updated log-weights, and what their weights come to; where there are states, their values."""
    program = tl.program_id(0).to(tl.int64)
    row, item = program // blocks, (program % blocks) * TILE + tl.arange(0, TILE)
    inside = item < m
    if states is not None:
        first = (program % blocks) * TILE
        last = tl.minimum(first + TILE, m)
        evaluate_range(
            states, weight, center, constant, values, status, row * m + first, row * m + last, columns, FUNCTION, LANES
        )
        tl.debug_barrier()
    real = log_weights.dtype.element_ty
    beta = _of_rows(betas, one_beta, row, True).to(real)
    previous_beta = _of_rows(previous_betas, one_previous_beta, row, True).to(real)
    at = row * m + item
    updated, bad = reweigh(log_weights, values, previous_values, log_ratio, beta, previous_beta, at, inside)
    refuse(bad, at, status)
    tl.store(updated_log_weights + at, updated, mask=inside)
    weigh_block(usable(updated), item, program, exponents, sums, squares, tops, firsts, alive)


@triton.jit
def follow(
    ends,
    surplus,
    records,
    values,
    moving,
    log_weights,
    new_values,
    moved,
    ancestors,
    m,
    tiles,
    bits,
    TILE: tl.constexpr,
):
    """One program a tile of slots: values and what moves along follow the ancestors of a group that resamples."""
    program = tl.program_id(0).to(tl.int64)
    row, slot = program // tiles, (program % tiles) * TILE + tl.arange(0, TILE)
    inside = slot < m
    start = row * m
    ancestor = slot
    if tl.load(records + row * FIELDS + ACTIVE) != 0:
        ancestor = slot_ancestors(ends, surplus, row, slot, inside, m, bits, True)
        tl.store(log_weights + start + slot, tl.zeros((TILE,), log_weights.dtype.element_ty), mask=inside)
    tl.store(ancestors + start + slot, ancestor.to(tl.int32), mask=inside)
    tl.store(new_values + start + slot, tl.load(values + start + ancestor, mask=inside), mask=inside)
    if moving is not None:
        tl.store(moved + start + slot, tl.load(moving + start + ancestor, mask=inside), mask=inside)


def reweight_select(
    inputs: Sequence[Tensor | None],
    betas: Tensor | None,
    beta: float,
    previous_betas: Tensor | None,
    previous_beta: float,
    rule: int,
    ess_threshold: float,
    seeds: Tensor | None,
    seed: int,
    step: int | Tensor,
    outputs: Sequence[Tensor],
    status: Tensor,
    states: Tensor | None = None,
    value: RowValue | None = None,
) -> None:
    """Update weights and select; see ``csrc/cpu/select.h``.

    Args:
        inputs: log-weights, values, previous values, log-ratio and running values, contiguous ``[N]`` or ``[G, N]``.
        step: a number, or an int64 tensor ``[1]`` on the device.
        outputs: log-weights, values, running values, ancestors, resampled, log-Z increment and effective sample size.
        status: from `fastguide.triton._launch.new_status`; invalid value with the first particle of which an input is
            refused or the log-weight would be, degenerate with the first group without weight.
        states: ``[G * N, columns]``, contiguous, where the kernels are to write the values first.
        value: what to evaluate them with.
    """
    log_weights, values, previous_values, log_ratio, moving = inputs
    assert log_weights is not None
    new_log_weights, new_values, moved, ancestors, *of_groups = outputs
    groups = log_weights.shape[0] if log_weights.dim() > 1 else 1
    m, device = log_weights.shape[-1], log_weights.device
    seeds = group_seeds(seeds, seed, groups, device)
    if moving is not None:
        word = {4: torch.int32, 8: torch.int64}[moving.element_size()]
        moving, moved = moving.view(word), moved.view(word)
    threshold = ess_threshold * m
    x = new_log_weights.view(groups, m)
    *known, called = value or RowValue(None, None, None, None)
    of_states = (states, *known, 0 if states is None else states.shape[1])
    if held(rule, m):
        width = power_of_two(m)
        chosen = config("reweight_select.reweight_rows", groups * m, device)
        rows = rows_of(width, groups, chosen)
        counted = rule in (MULTINOMIAL.value, RESIDUAL.value)
        running = torch.empty((groups, m) if counted else 0, dtype=torch.int64, device=device)
        ends = torch.empty(groups, m, dtype=torch.int32, device=device)
        warps = warps_of(width, chosen)
        lanes = _lanes(warps, 32 if called is not None else _COLUMNS_A_WARP)
        reweight_rows[(cdiv(groups, rows),)](
            log_weights, values, previous_values, log_ratio, moving, betas, previous_betas, seeds, step, x, new_values,
            moved, ancestors, *of_groups, running, ends, status, groups, m, m.bit_length(), threshold, beta,
            previous_beta, *of_states, FUNCTION=called, LANES=lanes, RULE=rule, ROWS=rows, WIDTH=width, num_warps=warps,
            **EXACT,
        )  # fmt: skip
        return
    blocks, tile = cdiv(m, BLOCK.value), _blocks.tile_of(m)
    work = _blocks.workspace(groups, m, device)
    warps = config("reweight_select.reweigh_blocks", groups * m, device).warps
    reweigh_blocks[(groups * blocks,)](
        log_weights, values, previous_values, log_ratio, betas, previous_betas, x, *work.parts, status, m, blocks, beta,
        previous_beta, *of_states, FUNCTION=called, LANES=_lanes(warps, 32), TILE=tile, num_warps=warps, **EXACT,
    )  # fmt: skip
    resampled, log_z_increment, ess = of_groups
    _blocks.launch_fold(m, 1, log_z_increment, ess, status, work, resampled, threshold)
    end = _blocks.launch_ends(x, m, rule, seeds, 1, step, work)
    surplus = _blocks.launch_surplus(end, work)
    tile, warps = config("reweight_select.follow", groups * m, device)
    tiles = cdiv(m, tile)
    follow[(groups * tiles,)](
        end, surplus, work.records, values, moving, x, new_values, moved, ancestors, m, tiles, m.bit_length(),
        TILE=tile, num_warps=warps, **EXACT,
    )  # fmt: skip


def reweight_select_states(
    kind: str,
    states: Tensor,
    parameters: Sequence[Tensor],
    settings: Sequence[int],
    function: Any,
    inputs: Sequence[Tensor | None],
    *arguments: Any,
) -> None:
    """Evaluate states, then update weights and select: in the launches of `reweight_select` where that pays.

    Args:
        kind, states, parameters, settings, function: as for `fastguide.triton.evaluate.evaluate`.
        inputs: as for `reweight_select`; the values are written.
        arguments: its other ones. The status also gets what evaluation puts there.
    """
    values = inputs[1]
    assert values is not None
    groups, m = values.shape[0] if values.dim() > 1 else 1, values.shape[-1]
    value = row_value(kind, parameters, function, states.device)
    inline: dict[str, Any] = {}
    if value is not None and _pays(arguments[4], groups, m, states.shape[1] * states.element_size(), states.device):
        inline = {"states": states, "value": value}
    else:
        out = values.view(-1) if values.dtype == torch.float32 else torch.empty(len(states), device=states.device)
        evaluate(kind, states, parameters, settings, function, out, arguments[-1])
        if out.dtype != values.dtype:
            values.view(-1).copy_(out)
    reweight_select(inputs, *arguments, **inline)


def _pays(rule: int, groups: int, m: int, row_bytes: int, device: torch.device) -> bool:
    """Say whether the programs that weigh should evaluate as well.

    A launch is saved, but there may be few programs: one for `BLOCK` particles. Then others that evaluate have more
    multiprocessors at work, which is worth more than the launch unless a program has little to read.
    """
    if held(rule, m):
        rows = rows_of(power_of_two(m), groups, config("reweight_select.reweight_rows", groups * m, device))
        programs, items = cdiv(groups, rows), min(rows, groups) * m
    else:
        programs, items = groups * cdiv(m, BLOCK.value), min(m, BLOCK.value)
    return programs >= FILLING or items * row_bytes <= LAUNCH_BYTES


def _lanes(warps: int, a_warp: int) -> int:
    """Return how many states a program evaluates at a time; interpreted, more cost the same."""
    return a_warp * warps * (8 if interpreted() else 1)


@triton.jit
def _half_square(state, present, columns):
    total = tl.zeros(state.shape, tl.float32)
    for d in range(columns):
        x = tl.load(state + d, mask=present, other=0.0)
        total = total + x * x
    return total * 0.5


_PARTICLES = "*fp32 *fp32 *fp32 *fp32"
_ROWS = f"{_PARTICLES} *i64 *fp64 *fp64 *i64 i32 *fp32 *fp32 *i64 *i32 *i1 *fp64 *fp64 *i64 *i32 *i64 i32 i32 i32 {'fp64 ' * 3}"
_BLOCKS = f"{_PARTICLES} *fp64 *fp64 *fp32 *i64 *i64 *i64 *fp64 *i64 *i32 *i64 i32 i32 fp64 fp64"
_FOLLOW = "*i32 *i32 *i64 *fp32 *i64 *fp32 *fp32 *i64 *i32 i32 i32 i32"
_NO_COLUMNS = {"weight": None, "center": None, "constant": None}


def _of_value(value: dict[str, Any], types: str, a_warp: int, sizes: tuple[int, ...], label: str) -> list[Variant]:
    """Return the variants of the kernels that weigh, with values as constants and types say."""

    def of_rows(rule: int, width: int, c: Config) -> Variant:
        warps = warps_of(width, c)
        shape = {"LANES": a_warp * warps, "RULE": rule, "ROWS": rows_of(width, 1 << 20, c), "WIDTH": width}
        name = f"{'residual' if rule else 'systematic'}, {width:,}" + (f", {label}" if label else "")
        return Variant(reweight_rows, f"{_ROWS} {types}", shape | value, warps, name)

    def of_blocks(c: Config) -> Variant:
        shape = {"LANES": 32 * c.warps, "TILE": c.tile}
        return Variant(reweigh_blocks, f"{_BLOCKS} {types}", shape | value, c.warps, label)

    found = variants(reweigh_blocks, of_blocks)
    for rule, width in (*((0, size) for size in sizes), (3, 1024)):
        found += variants(reweight_rows, partial(of_rows, rule, width))
    return found


_COLUMNS = "*fp32 *fp32 *fp32"
VARIANTS = [
    *_of_value({**_NO_COLUMNS, "states": None, "FUNCTION": None}, "i32", 32, (32, 1024, 4096), ""),
    *_of_value({**_NO_COLUMNS, "FUNCTION": _half_square}, "*fp32 i32", 32, (32, 1024, 4096), "a function"),
    *_of_value({"center": None, "FUNCTION": None}, f"{_COLUMNS} i32", _COLUMNS_A_WARP, (4096,), "linear"),
    *_of_value({"FUNCTION": None}, f"{_COLUMNS} *fp32 i32", _COLUMNS_A_WARP, (1024, 4096), "quadratic"),
    *variants(follow, lambda c: Variant(follow, _FOLLOW, {"TILE": c.tile}, c.warps)),
]
