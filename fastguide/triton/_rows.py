"""Selection within rows that one program holds in registers: tiles of rows by items, rows of at most one block.

``[R, W]`` are rows by items, padded to powers of two; ``[R, S]`` rows by slots; ``[R, 1]`` what a row has once.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastguide.triton.numerics.blocks import first_scale, shift
from fastguide.triton.numerics.exp import block_exponent, scaled_weight
from fastguide.triton.numerics.philox import mulhi64
from fastguide.triton.numerics.selection import (
    LARGEST_SCALE,
    SQUARE_DROP,
    TOTAL_LIMIT,
    candidates,
    choose_scale,
    divide,
    effective_sample_size,
    log_mean_weight,
    reciprocal,
    select_word,
)

SYSTEMATIC, STRATIFIED, MULTINOMIAL, RESIDUAL, ARGMAX = (tl.constexpr(code) for code in range(5))
"""Codes of rules, the first of ``Rule`` in ``csrc/core/selection.h``: those that need no sort."""


@triton.jit
def find_above(points, start, m, targets, bits):
    """Return for each target the first of ``m`` items with ``target < points[start + item]``, int64 and below ``2^bits``.

    ``start`` is broadcast against the targets; points increase. Where no item is above, ``m`` or ``2^bits - 1``.
    """
    found = (targets + start).to(tl.int64) * 0
    for i in range(bits):
        probe = found + (tl.full((), 1, tl.int64) << (bits - 1 - i))
        inside = probe <= m
        point = tl.load(points + start + tl.where(inside, probe, 1) - 1)
        found = tl.where(inside & (point <= targets), probe, found)
    return found


@triton.jit
def fold_rows(x, m):
    """Return points ``[R, W]``, and ``[R, 1]`` total, first largest item, log-mean-weight and effective sample size.

    Args:
        x: ``[R, W]`` log-weights, ``-inf`` where they are weights of zero and from item ``m`` on.
    """
    item = tl.arange(0, x.shape[1])[None, :]
    most = tl.max(x, 1, keep_dims=True)
    largest = tl.min(tl.where(x == most, item, x.shape[1]), 1, keep_dims=True)
    exponent = block_exponent(tl.where(most > float("-inf"), most, 0.0))
    w = scaled_weight(x, exponent)
    running = tl.cumsum(w, 1)
    total = tl.sum(w, 1, keep_dims=True)
    # One block: its sum is the only term, and its squares fit as they are.
    first = first_scale(total.to(tl.float64), LARGEST_SCALE)
    exact = candidates(total, total * 0, total.to(tl.float64), first)
    scale, total = choose_scale(exact, total.to(tl.float64), first, TOTAL_LIMIT - 1, 1)
    v = w >> SQUARE_DROP
    squares = tl.sum(v * v, 1)
    log_mean = log_mean_weight(exponent, scale[:, None], total[:, None], m)
    ess = effective_sample_size(total, scale, squares, 0, m)
    return shift(running, scale[:, None]), total[:, None], largest, log_mean, ess[:, None]


@triton.jit
def draw_rows(
    points, total, largest, row, rows, m, k, bits, seed, parent, step, running, ends,
    RULE: tl.constexpr, SLOTS: tl.constexpr, DRAW_WIDTH: tl.constexpr,
):  # fmt: skip
    """Return ancestors ``[R, S]`` int64; see `fastguide.reference.select.draw` and ``keep_slots``.

    What is searched goes through memory, ``running`` and ``ends``: a bisection in registers would be a shuffle of all of
    them at every step.

    Args:
        points, total, largest: from `fold_rows`.
        row: ``[R, 1]``; those from ``rows`` on are none.
        m, k, bits: items, draws and the bits of ``m``; S is ``DRAW_WIDTH``, a power of two not below ``k``.
        seed, parent: ``[R, 1]``.
        running: ``[rows, m]`` int64, written for multinomial and residual only.
        ends: ``[rows, m]`` int32, written.

    A row of total 0 gets ``i mod m`` in slot ``i``.
    """
    item = tl.arange(0, points.shape[1])[None, :]
    slot = tl.arange(0, DRAW_WIDTH)[None, :].to(tl.int64)
    there = row < rows
    start = tl.minimum(row, rows - 1) * m
    inside = there & (item < m)
    dead = total == 0
    # A row without weight has nothing to divide: any total keeps the arithmetic within its bounds.
    total = tl.where(dead, 1, total)
    q = (total + k - 1) // k
    inverse = reciprocal(q)
    even = points + tl.where(item >= largest, k * q - total, 0)
    if RULE == ARGMAX:
        end = tl.where(item >= largest, k, 0).to(tl.int32)
    elif RULE == SYSTEMATIC:
        offset = mulhi64(select_word(seed, parent * 0, parent, step), q)
        end = divide(even + (q - 1 - offset), q, inverse).to(tl.int32)
    elif RULE == STRATIFIED:
        whole = divide(even, q, inverse)
        offset = mulhi64(select_word(seed, whole, parent, step), q)
        end = (whole + (offset < even - whole * q).to(tl.int64)).to(tl.int32)
    else:
        draws = total * 0 + k
        copies = tl.zeros_like(points).to(tl.int32)
        if RULE == RESIDUAL:
            tl.store(running + start + item, even, mask=inside)
            tl.debug_barrier()
            before = tl.load(running + start + item - 1, mask=inside & (item > 0), other=0)
            tl.debug_barrier()
            own = divide(tl.where(inside, even - before, 0), q, inverse)
            draws -= tl.sum(own, 1, keep_dims=True)
            total = draws * q
            points = even - tl.cumsum(own, 1) * q
            copies = own.to(tl.int32)
        tl.store(running + start + item, points, mask=inside)
        tl.store(ends + start + item, copies, mask=inside)
        tl.debug_barrier()
        target = mulhi64(select_word(seed, slot, parent, step), total)
        drawn = tl.minimum(find_above(running, start, m, target, bits), m - 1)
        tl.atomic_add(ends + start + drawn, 1, mask=there & (slot < draws), sem="relaxed")
        tl.debug_barrier()
        end = tl.cumsum(tl.load(ends + start + item, mask=inside, other=0), 1)
        tl.debug_barrier()
    tl.store(ends + start + item, end, mask=inside)
    tl.debug_barrier()
    if SLOTS:
        before = tl.load(ends + start + item - 1, mask=inside & (item > 0), other=0)
        vacant = inside & (end == before)
        rank = tl.cumsum(vacant.to(tl.int32), 1)
        tl.debug_barrier()
        tl.store(ends + start + item, end - (item + 1) + rank, mask=inside)
        tl.debug_barrier()
        ancestors = tl.where(vacant, find_above(ends, start, m, tl.where(vacant, rank - 1, 0), bits), item)
    else:
        ancestors = find_above(ends, start, m, tl.where(slot < k, slot, 0), bits)
    return tl.where(dead, slot % m, ancestors)
