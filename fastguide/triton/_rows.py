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
def first_above(points, targets, BITS: tl.constexpr):
    """Return for each target ``[R, S]`` how many of its row's ``points`` ``[R, W]``, increasing, do not exceed it.

    That is the first item with ``target < point``. The answer is below ``2^BITS``, and at most W.
    """
    width: tl.constexpr = points.shape[1]
    found = (targets * 0).to(tl.int32)
    for i in tl.static_range(BITS):
        probe = found + (1 << (BITS - 1 - i))
        point = tl.gather(points, tl.minimum(probe, width) - 1, 1)
        found = tl.where((probe <= width) & (point <= targets), probe, found)
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
    points, total, largest, m, k, seed, parent, step, RULE: tl.constexpr, SLOTS: tl.constexpr, WIDTH: tl.constexpr,
    BITS: tl.constexpr, DRAW_WIDTH: tl.constexpr, DRAW_BITS: tl.constexpr,
):  # fmt: skip
    """Return ancestors ``[R, S]`` int32; see `fastguide.reference.select.draw` and ``keep_slots``.

    Args:
        points, total, largest: from `fold_rows`.
        m, k: items and draws; S is ``DRAW_WIDTH``.
        seed, parent: ``[R, 1]``.
        WIDTH, DRAW_WIDTH: powers of two, of ``BITS`` and ``DRAW_BITS`` bits, not below ``m`` and ``k``.

    A row of total 0 gets ``i mod m`` in slot ``i``.
    """
    item = tl.broadcast_to(tl.arange(0, WIDTH)[None, :], points.shape)
    slot = tl.broadcast_to(tl.arange(0, DRAW_WIDTH)[None, :], [points.shape[0], DRAW_WIDTH])
    before = tl.maximum(item, 1) - 1
    dead = total == 0
    # A row without weight has nothing to divide: any total keeps the arithmetic within its bounds.
    total = tl.where(dead, 1, total)
    q = (total + k - 1) // k
    inverse = reciprocal(q)
    even = points + tl.where(item >= largest, k * q - total, 0)
    if RULE == ARGMAX:
        ends = tl.where(item >= largest, k, 0).to(tl.int32)
    elif RULE == SYSTEMATIC:
        offset = mulhi64(select_word(seed, parent * 0, parent, step), q)
        ends = divide(even + (q - 1 - offset), q, inverse).to(tl.int32)
    elif RULE == STRATIFIED:
        whole = divide(even, q, inverse)
        offset = mulhi64(select_word(seed, whole, parent, step), q)
        ends = (whole + (offset < even - whole * q).to(tl.int64)).to(tl.int32)
    else:
        word = select_word(seed, slot, parent, step)
        if RULE == MULTINOMIAL:
            drawn = first_above(points, mulhi64(word, total), BITS)
            drawn = tl.where(slot < k, drawn, WIDTH)
            copies = item
        else:
            share = even - tl.where(item > 0, tl.gather(even, before, 1), 0)
            own = divide(share, q, inverse)
            copies = tl.cumsum(own.to(tl.int32), 1)
            left = k - tl.sum(own, 1, keep_dims=True)
            drawn = first_above(even - copies.to(tl.int64) * q, mulhi64(word, left * q), BITS)
            drawn = tl.where(slot < left, tl.minimum(drawn, m - 1), WIDTH)
        if DRAW_WIDTH > 1:
            drawn = tl.sort(drawn, 1)
        ends = first_above(drawn, item, DRAW_BITS + 1)
        if RULE == RESIDUAL:
            ends += copies
    if SLOTS:
        vacant = ((ends == tl.where(item > 0, tl.gather(ends, before, 1), 0)) & (item < m)).to(tl.int32)
        rank = tl.cumsum(vacant, 1)
        surplus = tl.where(item < m, ends - (item + 1) + rank, k)
        ancestors = tl.where(vacant == 1, first_above(surplus, rank - 1, BITS), item)
    elif RULE == MULTINOMIAL:
        ancestors = drawn
    else:
        ends = tl.where(item < m, ends, k)
        ancestors = first_above(ends, slot, BITS)
    return tl.where(dead, slot % m, ancestors).to(tl.int32)
