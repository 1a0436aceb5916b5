"""``reweight_select`` in Triton: weight update and adaptive resampling, decided on the device group by group.

Groups of one block take one launch. Longer ones five: the update with the sums of blocks, one scale a group, the ends of
slots, the copies to spare, and at last the particles follow their ancestors.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastguide.triton import _blocks
from fastguide.triton._blocks import ACTIVE, FIELDS, refuse, slot_ancestors, weigh_block
from fastguide.triton._launch import DEGENERATE, EXACT, NEVER, Variant, cdiv, power_of_two
from fastguide.triton._rows import MULTINOMIAL, RESIDUAL, draw_rows, fold_rows
from fastguide.triton.numerics.selection import BLOCK, usable
from fastguide.triton.seeds import group_seeds
from fastguide.triton.select import held, rows_of, warps_of
from fastguide.triton.tuning import Config, config, variants

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


@triton.jit(do_not_specialize=["step"])
def reweight_rows(
    log_weights, values, previous_values, log_ratio, moving, betas, previous_betas, seeds, step, new_log_weights,
    new_values, moved, ancestors, resampled, log_z_increment, ess, running, ends, status, rows, m, bits,
    threshold: tl.float64, RULE: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """One program ``ROWS`` groups of at most one block."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    item = tl.arange(0, WIDTH)[None, :]
    there = row < rows
    inside = there & (item < m)
    start = tl.minimum(row, rows - 1) * m
    real = log_weights.dtype.element_ty
    beta = tl.load(betas + row, mask=there, other=0.0).to(real)
    previous_beta = tl.load(previous_betas + row, mask=there, other=0.0).to(real)
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
    tops, firsts, alive, status, m, blocks, TILE: tl.constexpr,
):  # fmt: skip
    """One program a block: the updated log-weights, and what their weights come to."""
    program = tl.program_id(0).to(tl.int64)
    row, item = program // blocks, (program % blocks) * TILE + tl.arange(0, TILE)
    inside = item < m
    real = log_weights.dtype.element_ty
    beta, previous_beta = tl.load(betas + row).to(real), tl.load(previous_betas + row).to(real)
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
) -> None:
    """Update weights and select; see ``csrc/cpu/select.h``.

    Args:
        inputs: log-weights, values, previous values, log-ratio and running values, contiguous ``[N]`` or ``[G, N]``.
        step: a number, or an int64 tensor ``[1]`` on the device.
        outputs: log-weights, values, running values, ancestors, resampled, log-Z increment and effective sample size.
        status: from `fastguide.triton._launch.new_status`; invalid value with the first particle of which an input is
            refused or the log-weight would be, degenerate with the first group without weight.
    """
    log_weights, values, previous_values, log_ratio, moving = inputs
    assert log_weights is not None
    new_log_weights, new_values, moved, ancestors, *of_groups = outputs
    groups = log_weights.shape[0] if log_weights.dim() > 1 else 1
    m, device = log_weights.shape[-1], log_weights.device
    seeds = group_seeds(seeds, seed, groups, device)
    if betas is None:
        betas = torch.full((groups,), beta, dtype=torch.float64, device=device)
    if previous_betas is None:
        previous_betas = torch.full((groups,), previous_beta, dtype=torch.float64, device=device)
    if moving is not None:
        word = {4: torch.int32, 8: torch.int64}[moving.element_size()]
        moving, moved = moving.view(word), moved.view(word)
    threshold = ess_threshold * m
    x = new_log_weights.view(groups, m)
    if held(rule, m):
        width = power_of_two(m)
        chosen = config("reweight_select.reweight_rows", groups * m, device)
        rows = rows_of(width, groups, chosen)
        counted = rule in (MULTINOMIAL.value, RESIDUAL.value)
        running = torch.empty((groups, m) if counted else 0, dtype=torch.int64, device=device)
        ends = torch.empty(groups, m, dtype=torch.int32, device=device)
        reweight_rows[(cdiv(groups, rows),)](
            log_weights, values, previous_values, log_ratio, moving, betas, previous_betas, seeds, step, x, new_values,
            moved, ancestors, *of_groups, running, ends, status, groups, m, m.bit_length(), threshold,
            RULE=rule, ROWS=rows, WIDTH=width, num_warps=warps_of(width, chosen), **EXACT,
        )  # fmt: skip
        return
    blocks, tile = cdiv(m, BLOCK.value), _blocks.tile_of(m)
    work = _blocks.workspace(groups, m, device)
    reweigh_blocks[(groups * blocks,)](
        log_weights, values, previous_values, log_ratio, betas, previous_betas, x, *work.parts, status, m, blocks,
        TILE=tile, num_warps=config("reweight_select.reweigh_blocks", groups * m, device).warps, **EXACT,
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


_PARTICLES = "*fp32 *fp32 *fp32 *fp32"
_ROWS = f"{_PARTICLES} *i64 *fp64 *fp64 *i64 i32 *fp32 *fp32 *i64 *i32 *i1 *fp64 *fp64 *i64 *i32 *i64 i32 i32 i32 fp64"
_BLOCKS = f"{_PARTICLES} *fp64 *fp64 *fp32 *i64 *i64 *i64 *fp64 *i64 *i32 *i64 i32 i32"
_FOLLOW = "*i32 *i32 *i64 *fp32 *i64 *fp32 *fp32 *i64 *i32 i32 i32 i32"


def _rows_variants(rule: int, width: int, label: str) -> list[Variant]:
    def variant(c: Config) -> Variant:
        constants = {"RULE": rule, "ROWS": rows_of(width, 1 << 20, c), "WIDTH": width}
        return Variant(reweight_rows, _ROWS, constants, warps_of(width, c), label)

    return variants(reweight_rows, variant)


VARIANTS = [
    *_rows_variants(0, 32, "systematic, 32"),
    *_rows_variants(0, 1024, "systematic, 1,024"),
    *_rows_variants(0, 4096, "systematic, 4,096"),
    *_rows_variants(3, 1024, "residual, 1,024"),
    *variants(reweigh_blocks, lambda c: Variant(reweigh_blocks, _BLOCKS, {"TILE": c.tile}, c.warps)),
    *variants(follow, lambda c: Variant(follow, _FOLLOW, {"TILE": c.tile}, c.warps)),
]
