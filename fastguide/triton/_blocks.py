"""Selection within rows of many blocks: reduce, then scan, each program a block of 4,096 items or of slots.

A boundary between two items' slots needs the total, so nothing is gained by one pass that looks back: the sums of blocks
are taken first (`weigh_block`), one program a row brings them to one scale (`fold_blocks`), and then each block redoes its
weights and knows where its items' slots end (``ends``: item ``n`` has the slots ``ends[n - 1] .. ends[n] - 1``). A slot finds
its item by bisection of ``ends``, so that one heavy item costs no more than many light ones. No program waits for another.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastguide.reference import select as _reference
from fastguide.triton._launch import DEGENERATE, EXACT, INVALID_VALUE, NEVER, Variant, cdiv, power_of_two
from fastguide.triton._rows import ARGMAX, MULTINOMIAL, RESIDUAL, STRATIFIED, SYSTEMATIC, find_above
from fastguide.triton.numerics.blocks import first_scale, rough, shift
from fastguide.triton.numerics.exp import block_exponent, scaled_weight
from fastguide.triton.numerics.philox import mulhi64
from fastguide.triton.numerics.selection import (
    BLOCK,
    LARGEST_SCALE,
    NO_EXPONENT,
    SQUARE_DROP,
    TOTAL_LIMIT,
    candidates,
    choose_scale,
    divide,
    effective_sample_size,
    log_mean_weight,
    reciprocal,
    select_word,
    usable,
)
from fastguide.triton.tuning import Config, config, variants

_CHUNK = tl.constexpr(1024)
"""Blocks of which one program reads the sums at once."""
_NEVER = tl.constexpr(NEVER)
_INVALID_VALUE = tl.constexpr(INVALID_VALUE)
_DEGENERATE = tl.constexpr(DEGENERATE)
_TOTAL, _SHARE, _EXTRA, _LARGEST, _ALIVE, ACTIVE, FIELDS = (tl.constexpr(i) for i in range(7))
"""Words of a row's record: total, q, the rest ``k q - total``, the first largest item, how many weights are not zero,
whether anything is drawn."""


class Workspace(NamedTuple):
    """What the kernels of rows ``[R, M]`` leave for one another.

    Attributes:
        exponents, sums, squares: ``[R, B]`` int64, of the weights of each block.
        tops, firsts: ``[R, B]`` float64 and int64, the largest log-weight and its first item.
        alive: ``[R, B]`` int32, how many weights are not zero.
        bases, shifts: ``[R, B]`` int64, the point at which a block begins and how its prefixes are shifted.
        vacant: ``[R, B]`` int32, how many items of a block have no slot.
        records: ``[R, 6]`` int64.
        ends: ``[R, M]`` int32.
    """

    exponents: Tensor
    sums: Tensor
    squares: Tensor
    tops: Tensor
    firsts: Tensor
    alive: Tensor
    bases: Tensor
    shifts: Tensor
    vacant: Tensor
    records: Tensor
    ends: Tensor

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """What `weigh_block` writes, in its order."""
        return self[:6]


def workspace(rows: int, m: int, device: torch.device) -> Workspace:
    """Return the memory that the kernels of this file need."""
    blocks = cdiv(m, BLOCK.value)

    def fresh(dtype: torch.dtype, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    exponents, sums, squares, firsts, bases, shifts = (fresh(torch.int64, rows, blocks) for _ in range(6))
    alive, vacant = (fresh(torch.int32, rows, blocks) for _ in range(2))
    tops = fresh(torch.float64, rows, blocks)
    records, ends = fresh(torch.int64, rows, FIELDS.value), fresh(torch.int32, rows, m)
    return Workspace(exponents, sums, squares, tops, firsts, alive, bases, shifts, vacant, records, ends)


@triton.jit
def weigh_block(x, item, here, exponents, sums, squares, tops, firsts, alive):
    """Write what the weights of a block ``x`` of items, ``-inf`` outside, come to."""
    most = tl.max(x, 0)
    filled = most > float("-inf")
    e = block_exponent(tl.where(filled, most, 0.0))
    w = scaled_weight(x, e)
    v = w >> SQUARE_DROP
    tl.store(exponents + here, tl.where(filled, e, NO_EXPONENT))
    tl.store(sums + here, tl.sum(w, 0))
    tl.store(squares + here, tl.sum(v * v, 0))
    tl.store(tops + here, most.to(tl.float64))
    tl.store(firsts + here, tl.min(tl.where(x == most, item, 2**62), 0))
    tl.store(alive + here, tl.sum((x > float("-inf")).to(tl.int32), 0))


@triton.jit
def refuse(bad, flat, status):
    """Lower the status to the first of the flat indices at which ``bad`` holds."""
    first = tl.min(tl.where(bad, flat, _NEVER))
    if first != _NEVER:
        tl.atomic_min(status + _INVALID_VALUE, first, sem="relaxed")


@triton.jit
def weigh(log_weights, exponents, sums, squares, tops, firsts, alive, status, m, blocks, TILE: tl.constexpr):
    """One program a block: its exponent, sums and largest item."""
    program = tl.program_id(0).to(tl.int64)
    row, item = program // blocks, (program % blocks) * TILE + tl.arange(0, TILE)
    inside = item < m
    x = tl.load(log_weights + row * m + item, mask=inside, other=float("-inf"))
    refuse(inside & ((x <= 1e9) == 0), row * m + item, status)
    weigh_block(usable(x), item, program, exponents, sums, squares, tops, firsts, alive)


@triton.jit
def fold_blocks(
    exponents, sums, squares, tops, firsts, alive, bases, shifts, records, log_mean, ess, resampled, status, m, k, blocks,
    needed, threshold: tl.float64, ADAPTIVE: tl.constexpr,
):  # fmt: skip
    """One program a row: all its blocks on one scale.

    ``log_mean``, ``ess`` and, where ``ADAPTIVE``, ``resampled`` get the row's results; then a row is active when its
    effective sample size is below ``threshold``, and ``log_mean`` is what resampling adds to log Z. The status gets the
    first row with fewer than ``needed`` items of nonzero weight.
    """
    row = tl.program_id(0).to(tl.int64)
    first_block = row * blocks
    i = tl.arange(0, _CHUNK)
    exponent = tl.full((), NO_EXPONENT, tl.int64)
    most = tl.full((), float("-inf"), tl.float64)
    living = tl.full((), 0, tl.int64)
    for start in range(0, blocks, _CHUNK):
        inside = start + i < blocks
        here = first_block + start + i
        exponent = tl.maximum(exponent, tl.max(tl.load(exponents + here, mask=inside, other=NO_EXPONENT), 0))
        most = tl.maximum(most, tl.max(tl.load(tops + here, mask=inside, other=float("-inf")), 0))
        living += tl.sum(tl.load(alive + here, mask=inside, other=0).to(tl.int64), 0)
    rough_total = tl.full((), 0.0, tl.float64)
    rough_squares = tl.full((), 0.0, tl.float64)
    largest = tl.full((), 2**62, tl.int64)
    for start in range(0, blocks, _CHUNK):
        inside = start + i < blocks
        here = first_block + start + i
        gap = exponent - tl.load(exponents + here, mask=inside, other=NO_EXPONENT)
        rough_total += tl.sum(rough(tl.load(sums + here, mask=inside, other=0), gap), 0)
        rough_squares += tl.sum(rough(tl.load(squares + here, mask=inside, other=0), 2 * gap), 0)
        top = tl.load(tops + here, mask=inside, other=float("-inf"))
        first = tl.load(firsts + here, mask=inside, other=2**62)
        largest = tl.minimum(largest, tl.min(tl.where(top == most, first, 2**62), 0))
    first_total = first_scale(rough_total, LARGEST_SCALE)
    first_squares = first_scale(rough_squares, 0)
    exact_total = tl.zeros((4,), tl.int64)
    exact_squares = tl.zeros((4,), tl.int64)
    for start in range(0, blocks, _CHUNK):
        inside = start + i < blocks
        here = first_block + start + i
        gap = (exponent - tl.load(exponents + here, mask=inside, other=NO_EXPONENT))[:, None]
        s = tl.load(sums + here, mask=inside, other=0)[:, None]
        v = tl.load(squares + here, mask=inside, other=0)[:, None]
        exact_total += tl.sum(candidates(s, gap, rough_total, first_total), 0)
        exact_squares += tl.sum(candidates(v, 2 * gap, rough_squares, first_squares), 0)
    scale, total = choose_scale(exact_total, rough_total, first_total, TOTAL_LIMIT - tl.full([], blocks, tl.int64), 0)
    square_scale, square = choose_scale(exact_squares, rough_squares, first_squares, TOTAL_LIMIT, 0)
    base = tl.full((), 0, tl.int64)
    for start in range(0, blocks, _CHUNK):
        inside = start + i < blocks
        here = first_block + start + i
        by = scale - (exponent - tl.load(exponents + here, mask=inside, other=NO_EXPONENT))
        shifted = shift(tl.load(sums + here, mask=inside, other=0), by)
        tl.store(bases + here, base + tl.cumsum(shifted, 0) - shifted, mask=inside)
        tl.store(shifts + here, by, mask=inside)
        base += tl.sum(shifted, 0)
    mean = log_mean_weight(exponent, scale, total, m)
    size = effective_sample_size(total, scale, square, -square_scale, m)
    active = total > 0
    if ADAPTIVE:
        active = active & (size < threshold)
        mean = tl.where(active | (total == 0), mean, 0.0)
        tl.store(resampled + row, active)
    tl.store(log_mean + row, mean)
    tl.store(ess + row, size)
    share = (total + k - 1) // k
    record = records + row * FIELDS
    tl.store(record + _TOTAL, total)
    tl.store(record + _SHARE, share)
    tl.store(record + _EXTRA, k * share - total)
    tl.store(record + _LARGEST, largest)
    tl.store(record + _ALIVE, living)
    tl.store(record + ACTIVE, active.to(tl.int64))
    if living < needed:
        tl.atomic_min(status + _DEGENERATE, row, sem="relaxed")


@triton.jit(do_not_specialize=["step"])
def end_slots(
    log_weights, exponents, bases, shifts, records, seeds, parents, step, points, ends, m, k, blocks,
    RULE: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One program a block: where the slots of its items end.

    ``ends`` get that for systematic, stratified and argmax; for multinomial ``points`` get the cumulative weights, for
    residual these with the rest given away, and ``ends`` the whole copies of each item.
    """
    program = tl.program_id(0).to(tl.int64)
    row, item = program // blocks, (program % blocks) * TILE + tl.arange(0, TILE)
    record = records + row * FIELDS
    if tl.load(record + ACTIVE) != 0:
        inside = item < m
        x = usable(tl.load(log_weights + row * m + item, mask=inside, other=float("-inf")))
        largest = tl.load(record + _LARGEST)
        q = tl.load(record + _SHARE)
        if RULE == ARGMAX:
            tl.store(ends + row * m + item, tl.where(item >= largest, k, 0).to(tl.int32), mask=inside)
        else:
            w = scaled_weight(x, tl.load(exponents + program))
            base, by = tl.load(bases + program), tl.load(shifts + program)
            running = tl.cumsum(w, 0)
            point = base + shift(running, by)
            if RULE == MULTINOMIAL:
                tl.store(points + row * m + item, point, mask=inside)
            else:
                extra = tl.load(record + _EXTRA)
                even = point + tl.where(item >= largest, extra, 0)
                inverse = reciprocal(q)
                if RULE == RESIDUAL:
                    tl.store(points + row * m + item, even, mask=inside)
                    before = base + shift(running - w, by) + tl.where(item > largest, extra, 0)
                    end = divide(even - before, q, inverse)
                else:
                    seed = tl.load(seeds + row // parents)
                    parent = row % parents
                    if RULE == SYSTEMATIC:
                        end = divide(even + (q - 1 - mulhi64(select_word(seed, row * 0, parent, step), q)), q, inverse)
                    else:
                        whole = divide(even, q, inverse)
                        offset = mulhi64(select_word(seed, whole, parent, step), q)
                        end = whole + (offset < even - whole * q).to(tl.int64)
                tl.store(ends + row * m + item, end.to(tl.int32), mask=inside)


@triton.jit(do_not_specialize=["step"])
def draw_points(
    points, copies, records, seeds, parents, step, counts, m, k, tiles, bits, RULE: tl.constexpr, TILE: tl.constexpr
):
    """One program a tile of draws: each finds its item by bisection of the points and raises its count.

    For residual, ``copies`` are the running numbers of whole copies, which its points lack.
    """
    program = tl.program_id(0).to(tl.int64)
    row, draw = program // tiles, (program % tiles) * TILE + tl.arange(0, TILE)
    record = records + row * FIELDS
    if tl.load(record + ACTIVE) != 0:
        seed = tl.load(seeds + row // parents)
        total, draws = tl.load(record + _TOTAL), tl.full([], k, tl.int64)
        q = tl.load(record + _SHARE)
        if RULE == RESIDUAL:
            draws -= tl.load(copies + row * m + m - 1)
            total = draws * q
        target = mulhi64(select_word(seed, draw, row % parents, step), total)
        found = draw * 0
        for i in range(bits):
            probe = found + (tl.full((), 1, tl.int64) << (bits - 1 - i))
            inside = probe <= m
            at = row * m + tl.where(inside, probe, 1) - 1
            point = tl.load(points + at)
            if RULE == RESIDUAL:
                point -= q * tl.load(copies + at)
            found = tl.where(inside & (point <= target), probe, found)
        tl.atomic_add(counts + row * m + tl.minimum(found, m - 1), 1, mask=draw < draws, sem="relaxed")


@triton.jit
def count_ancestors(ancestors, counts, m, k, tiles, TILE: tl.constexpr):
    """One program a tile of slots: raise the counts of the ancestors in it."""
    program = tl.program_id(0).to(tl.int64)
    row, slot = program // tiles, (program % tiles) * TILE + tl.arange(0, TILE)
    inside = slot < k
    ancestor = tl.load(ancestors + row * k + slot, mask=inside, other=0)
    tl.atomic_add(counts + row * m + ancestor, 1, mask=inside, sem="relaxed")


@triton.jit
def count_vacant(ends, records, vacant, m, blocks, TILE: tl.constexpr):
    """One program a block: how many of its items have no slot."""
    program = tl.program_id(0).to(tl.int64)
    row, item = program // blocks, (program % blocks) * TILE + tl.arange(0, TILE)
    if tl.load(records + row * FIELDS + ACTIVE) != 0:
        inside = item < m
        end = tl.load(ends + row * m + item, mask=inside, other=0)
        before = tl.load(ends + row * m + item - 1, mask=inside & (item > 0), other=0)
        tl.store(vacant + program, tl.sum((inside & (end == before)).to(tl.int32), 0))


@triton.jit
def count_surplus(ends, records, vacant, surplus, m, blocks, TILE: tl.constexpr):
    """One program a block: how many copies beyond the first its items and all before them have.

    Up to item ``n`` there are ``ends[n]`` copies and as many firsts as items that are not vacant.
    """
    program = tl.program_id(0).to(tl.int64)
    row, block = program // blocks, program % blocks
    item = block * TILE + tl.arange(0, TILE)
    if tl.load(records + row * FIELDS + ACTIVE) != 0:
        vacant_before = tl.full((), 0, tl.int32)
        i = tl.arange(0, _CHUNK)
        for start in range(0, block, _CHUNK):
            inside = start + i < block
            vacant_before += tl.sum(tl.load(vacant + row * blocks + start + i, mask=inside, other=0), 0)
        inside = item < m
        end = tl.load(ends + row * m + item, mask=inside, other=0)
        before = tl.load(ends + row * m + item - 1, mask=inside & (item > 0), other=0)
        rank = vacant_before + tl.cumsum((inside & (end == before)).to(tl.int32), 0)
        tl.store(surplus + row * m + item, end - (item + 1).to(tl.int32) + rank, mask=inside)


@triton.jit
def slot_ancestors(ends, surplus, row, slot, inside, m, bits, SLOTS: tl.constexpr):
    """Return the ancestors of a block of slots of an active row, int64."""
    if SLOTS:
        at = row * m + slot
        end = tl.load(ends + at, mask=inside, other=0)
        before = tl.load(ends + at - 1, mask=inside & (slot > 0), other=0)
        beyond = tl.load(surplus + at, mask=inside, other=0)
        vacant = inside & (end == before)
        rank = beyond - end + (slot + 1).to(tl.int32)
        return tl.where(vacant, find_above(surplus, row * m, m, tl.where(vacant, rank - 1, 0), bits), slot)
    else:
        return find_above(ends, row * m, m, tl.where(inside, slot, 0), bits)


@triton.jit
def fill(ends, surplus, records, ancestors, m, k, tiles, bits, SLOTS: tl.constexpr, TILE: tl.constexpr):
    """One program a tile of slots: the item of each; ``slot mod m`` in rows that are not active."""
    program = tl.program_id(0).to(tl.int64)
    row, slot = program // tiles, (program % tiles) * TILE + tl.arange(0, TILE)
    inside = slot < k
    ancestor = slot % m
    if tl.load(records + row * FIELDS + ACTIVE) != 0:
        ancestor = slot_ancestors(ends, surplus, row, slot, inside, m, bits, SLOTS)
    tl.store(ancestors + row * k + slot, ancestor.to(tl.int32), mask=inside)


@triton.jit
def take(order, records, ancestors, m, k, tiles, TILE: tl.constexpr):
    """One program a tile of slots: the best items in ``order``, from the first again where too few have a weight."""
    program = tl.program_id(0).to(tl.int64)
    row, slot = program // tiles, (program % tiles) * TILE + tl.arange(0, TILE)
    inside = slot < k
    ancestor = slot % m
    alive = tl.load(records + row * FIELDS + _ALIVE)
    if alive > 0:
        ancestor = tl.load(order + row * m + slot % alive, mask=inside, other=0)
    tl.store(ancestors + row * k + slot, ancestor.to(tl.int32), mask=inside)


def fold_rows(x: Tensor, k: int, needed: int, log_mean: Tensor, ess: Tensor, status: Tensor) -> Workspace:
    """Weigh rows ``[R, M]`` that all are to be drawn from, and write what `select` tells of each.

    Args:
        x: contiguous float32 or float64 log-weights.
        k: draws a row.
        needed: items of nonzero weight without which a row is degenerate.
        log_mean, ess: ``[R]`` float64, written.
        status: lowered; see `fastguide.triton._launch.new_status`.
    """
    rows, m = x.shape
    blocks = cdiv(m, BLOCK.value)
    work = workspace(rows, m, x.device)
    warps = config("_blocks.weigh", x.numel(), x.device).warps
    weigh[(rows * blocks,)](x, *work.parts, status, m, blocks, TILE=tile_of(m), num_warps=warps, **EXACT)
    launch_fold(k, needed, log_mean, ess, status, work)
    return work


def launch_fold(
    k: int,
    needed: int,
    log_mean: Tensor,
    ess: Tensor,
    status: Tensor,
    work: Workspace,
    resampled: Tensor | None = None,
    threshold: float = 0.0,
) -> None:
    """Bring the blocks of each row to one scale; with ``resampled``, decide which rows are drawn from."""
    rows, m = work.ends.shape
    fold_blocks[(rows,)](
        *work.parts, work.bases, work.shifts, work.records, log_mean, ess, resampled, status, m, k,
        work.sums.shape[1], needed, threshold, ADAPTIVE=resampled is not None,
        num_warps=config("_blocks.fold_blocks", work.ends.numel(), work.ends.device).warps, **EXACT,
    )  # fmt: skip


def tile_of(m: int) -> int:
    """Return the size of a program's block of items: that of the contract, or less where a row is less."""
    return min(_reference.BLOCK, power_of_two(m))


def launch_ends(
    x: Tensor, k: int, rule: int, seeds: Tensor, parents: int, step: int | Tensor, work: Workspace
) -> Tensor:
    """Return ``ends`` ``[R, M]`` int32 of rows that have been folded."""
    rows, m = x.shape
    blocks = cdiv(m, BLOCK.value)
    counted = rule in (MULTINOMIAL.value, RESIDUAL.value)
    points = torch.empty((rows, m) if counted else 0, dtype=torch.int64, device=x.device)
    end_slots[(rows * blocks,)](
        x, work.exponents, work.bases, work.shifts, work.records, seeds, parents, step, points, work.ends, m, k, blocks,
        RULE=rule, TILE=tile_of(m), num_warps=config("_blocks.end_slots", x.numel(), x.device).warps, **EXACT,
    )  # fmt: skip
    if not counted:
        return work.ends
    residual = rule == RESIDUAL.value
    copies = work.ends.cumsum(1, dtype=torch.int32) if residual else work.ends
    counts = work.ends if residual else torch.zeros_like(work.ends)
    tile, warps = config("_blocks.draw_points", rows * k, x.device)
    tiles = cdiv(k, tile)
    draw_points[(rows * tiles,)](
        points, copies, work.records, seeds, parents, step, counts, m, k, tiles, m.bit_length(),
        RULE=rule, TILE=tile, num_warps=warps, **EXACT,
    )  # fmt: skip
    return counts.cumsum(1, dtype=torch.int32)


def launch_fill(ends: Tensor, ancestors: Tensor, slots: bool, work: Workspace) -> None:
    """Write ancestors ``[R, K]`` in increasing order or, where ``slots``, survivors in their own slots."""
    (rows, m), k = ends.shape, ancestors.shape[1]
    surplus = launch_surplus(ends, work) if slots else ends
    tile, warps = config("_blocks.fill", ancestors.numel(), ends.device)
    tiles = cdiv(k, tile)
    fill[(rows * tiles,)](
        ends,
        surplus,
        work.records,
        ancestors,
        m,
        k,
        tiles,
        m.bit_length(),
        SLOTS=slots,
        TILE=tile,
        num_warps=warps,
        **EXACT,
    )


def launch_surplus(ends: Tensor, work: Workspace) -> Tensor:
    """Return the running numbers ``[R, M]`` int32 of copies beyond the first."""
    rows, m = ends.shape
    blocks = cdiv(m, BLOCK.value)
    surplus = torch.empty_like(ends)
    grid, tile = (rows * blocks,), tile_of(m)
    warps = config("_blocks.count_vacant", ends.numel(), ends.device).warps
    count_vacant[grid](ends, work.records, work.vacant, m, blocks, TILE=tile, num_warps=warps, **EXACT)
    warps = config("_blocks.count_surplus", ends.numel(), ends.device).warps
    count_surplus[grid](ends, work.records, work.vacant, surplus, m, blocks, TILE=tile, num_warps=warps, **EXACT)
    return surplus


def launch_take(order: Tensor, ancestors: Tensor, work: Workspace) -> None:
    """Write the first of each row's ``order`` ``[R, M]`` as ancestors ``[R, K]``."""
    (rows, m), k = order.shape, ancestors.shape[1]
    tile, warps = config("_blocks.take", ancestors.numel(), order.device)
    tiles = cdiv(k, tile)
    take[(rows * tiles,)](order, work.records, ancestors, m, k, tiles, TILE=tile, num_warps=warps, **EXACT)


def launch_counts(ancestors: Tensor, counts: Tensor) -> None:
    """Add to ``counts`` ``[R, M]`` int32 how often each item is among ancestors ``[R, K]``."""
    (rows, k), m = ancestors.shape, counts.shape[1]
    tile, warps = config("_blocks.count_ancestors", ancestors.numel(), counts.device)
    tiles = cdiv(k, tile)
    count_ancestors[(rows * tiles,)](ancestors, counts, m, k, tiles, TILE=tile, num_warps=warps, **EXACT)


def _variants(kernel: Any, types: str, label: str = "", **constants: Any) -> list[Variant]:
    def variant(c: Config) -> Variant:
        tile = {"TILE": c.tile} if "TILE" in kernel.arg_names else {}
        return Variant(kernel, types, {**constants, **tile}, c.warps, label)

    return variants(kernel, variant)


_PARTS = "*i64 *i64 *i64 *fp64 *i64 *i32"
_FOLD = f"{_PARTS} *i64 *i64 *i64 *fp64 *fp64 *i1 *i64 i32 i32 i32 i32 fp64"
_ENDS = "*fp32 *i64 *i64 *i64 *i64 *i64 i32 i32 *i64 *i32 i32 i32 i32"
_DRAWS = "*i64 *i32 *i64 *i64 i32 i32 *i32 i32 i32 i32 i32"
VARIANTS = [
    *_variants(weigh, f"*fp32 {_PARTS} *i64 i32 i32", "float32"),
    *_variants(weigh, f"*fp64 {_PARTS} *i64 i32 i32", "float64"),
    *_variants(fold_blocks, _FOLD, ADAPTIVE=True),
    *_variants(end_slots, _ENDS, "systematic", RULE=SYSTEMATIC.value),
    *_variants(end_slots, _ENDS, "stratified", RULE=STRATIFIED.value),
    *_variants(end_slots, _ENDS, "multinomial", RULE=MULTINOMIAL.value),
    *_variants(end_slots, _ENDS, "residual", RULE=RESIDUAL.value),
    *_variants(draw_points, _DRAWS, "residual", RULE=RESIDUAL.value),
    *_variants(count_ancestors, "*i32 *i32 i32 i32 i32"),
    *_variants(count_vacant, "*i32 *i64 *i32 i32 i32"),
    *_variants(count_surplus, "*i32 *i64 *i32 *i32 i32 i32"),
    *_variants(fill, "*i32 *i32 *i64 *i32 i32 i32 i32 i32", "sorted", SLOTS=False),
    *_variants(fill, "*i32 *i32 *i64 *i32 i32 i32 i32 i32", "slots", SLOTS=True),
    *_variants(take, "*i64 *i64 *i32 i32 i32 i32"),
]
