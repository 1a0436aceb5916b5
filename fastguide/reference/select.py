"""The specification of `fastguide.ops.select` in plain torch: weights as integers, draws as integers.

A row is one set of M log-weights from which K are drawn. It is cut into blocks of 4,096; a block has its own exponent,
so that one read suffices and nothing depends on the order in which blocks are met. With ``E`` the largest exponent,
block sums and prefixes are brought to the scale ``2^(50 + L - E)``, ``L`` being the largest that keeps the total below
2^62. The point ``C_n`` is the sum of weights up to and including item ``n`` on that scale.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastguide.reference.exp import MAX_LOG_WEIGHT, WEIGHT_BITS, block_exponent, scaled_weight
from fastguide.reference.log import LN2, log, log_mantissa, power_of_two, split
from fastguide.reference.philox import Stream, counter_word, mulhi64, philox, word64

BLOCK = 4096
TOTAL_LIMIT = 2**62
SQUARE_DROP = 24
"""Bits dropped from a weight before it is squared: 4,096 squares then fit 62 bits."""


class Fold(NamedTuple):
    """What the weights of rows come to. All but ``points`` are ``[R]``.

    Attributes:
        points: ``[R, M]`` int64, the cumulative weights ``C_n``.
        total: int64, the last point; 0 marks a degenerate row, in which every weight is zero.
        largest: int64, the index of the first largest log-weight.
        log_mean_weight: float64, ``-inf`` for a degenerate row.
        ess: float64 in [1, M], 0 for a degenerate row.
    """

    points: Tensor
    total: Tensor
    largest: Tensor
    log_mean_weight: Tensor
    ess: Tensor


def _shift(x: Tensor, by: Tensor) -> Tensor:
    return torch.where(by >= 0, x << by.clamp(0, 62), x >> (-by).clamp(0, 63))


def _largest_scale(terms: Tensor, gap: Tensor, candidates: range, limit: int) -> tuple[Tensor, Tensor]:
    """Return the first ``s`` of ``candidates`` (falling) with ``sum(shift(terms, s - gap)) <= limit``, and that sum."""
    scale = torch.full_like(terms[:, 0], candidates[-1])
    total = torch.zeros_like(scale)
    found = torch.zeros_like(scale, dtype=torch.bool)
    for s in candidates:
        by = s - gap
        # A rough total in floating point keeps the exact one from overflowing.
        rough = (terms.double() * power_of_two(by.clamp(min=-1000))).sum(-1)
        exact = _shift(terms, torch.where((rough < 1.5 * limit)[:, None], by, -63)).sum(-1)
        fits = (rough < 1.5 * limit) & (exact <= limit) & ~found
        scale = torch.where(fits, s, scale)
        total = torch.where(fits, exact, total)
        found |= fits
    return scale, total


def effective_sample_size(total: Tensor, scale: Tensor, squares: Tensor, drop: Tensor, m: int) -> Tensor:
    """Return ``(sum of w)^2 / (sum of w^2)`` in [1, m].

    The squares are those of weights without their last 24 bits, so the result is too large by a relative error that is
    2^-24 where the largest weights carry the sum of squares and never above 2^-17. Equal weights give ``m`` exactly: a
    ratio within the rounding of these few operations (2^-48) counts as ``m``.
    """
    t = total.double()
    ratio = t * t / squares.double().clamp(min=1.0) * power_of_two(-2 * scale - drop - 2 * SQUARE_DROP)
    return torch.where(ratio >= m * (1.0 - 2.0**-48), float(m), ratio.clamp(min=1.0))


def fold(log_weights: Tensor) -> Fold:
    """Bring ``[R, M]`` log-weights (float32 or float64, no NaN, none above 1e9) to integers on one scale a row."""
    rows, m = log_weights.shape
    blocks = -(-m // BLOCK)
    size = min(m, BLOCK)
    x = torch.nn.functional.pad(log_weights, (0, blocks * size - m), value=-torch.inf).view(rows, blocks, size)
    x = torch.where(x >= -MAX_LOG_WEIGHT, x, -torch.inf)
    block_max = x.amax(-1)
    filled = block_max > -torch.inf
    e = block_exponent(torch.where(filled, block_max, 0))
    exponent = torch.where(filled, e, -(2**40)).amax(-1)
    gap = torch.where(filled, exponent[:, None] - e, 0)

    w = scaled_weight(x, e[..., None])
    scale, total = _largest_scale(w.sum(-1), gap, range(14, -21, -1), TOTAL_LIMIT - blocks)
    by = scale[:, None] - gap
    shifted = _shift(w.sum(-1), by)
    base = shifted.cumsum(-1) - shifted
    points = base[..., None] + _shift(w.cumsum(-1), by[..., None])

    v = w >> SQUARE_DROP
    drop, squares = _largest_scale((v * v).sum(-1), 2 * gap, range(0, -21, -1), TOTAL_LIMIT)
    ess = effective_sample_size(total, scale, squares, -drop, m)

    k, mantissa = split((total.double() / m).clamp(min=1.0))
    log_mean = (exponent - WEIGHT_BITS - scale + k).double() * LN2 + log_mantissa(mantissa)
    return Fold(
        points.reshape(rows, -1)[:, :m],
        total,
        x.reshape(rows, -1).argmax(-1),
        torch.where(total > 0, log_mean, -torch.inf),
        torch.where(total > 0, ess, 0.0),
    )


def words(seeds: Tensor, parents: Tensor, count: int, step: int) -> Tensor:
    """Return the first ``count`` 64-bit words ``[R, count]`` that rows with these seeds and parents ``[R]`` draw."""
    i = torch.arange((count + 1) // 2, device=seeds.device)
    w = philox(seeds[:, None], i, parents[:, None], 0, counter_word(step, Stream.SELECT))
    return torch.stack([word64(w[0], w[1]), word64(w[2], w[3])], -1).flatten(1)[:, :count]


def _index(points: Tensor, targets: Tensor) -> Tensor:
    """Return for each target ``t`` the first item with ``t < C_n``: it holds ``t``, and its weight is not zero."""
    return torch.searchsorted(points.contiguous(), targets.contiguous(), right=True)


def _repeat(counts: Tensor, k: int) -> Tensor:
    """Return ``[R, k]`` indices: ``counts[n]`` times ``n``, in order of ``n``."""
    slots = torch.arange(k, device=counts.device).expand(len(counts), k)
    return _index(counts.cumsum(-1), slots)


def _counts(indices: Tensor, m: int, weight: Tensor) -> Tensor:
    counts = torch.zeros(len(indices), m, dtype=torch.int64, device=indices.device)
    return counts.scatter_add_(1, indices, weight.to(torch.int64).expand_as(indices))


def draw(fold: Fold, k: int, rule: str, random: Tensor) -> Tensor:
    """Draw ``k`` of each row by an unbiased rule, in increasing order of index.

    With ``q = ceil(T / k)`` the remainder ``k q - T`` (below ``k``) is given to the first largest weight, so that the
    total is ``k q`` and the share of a slot is exactly ``q``. Multinomial draws use ``T`` itself.

    Args:
        fold: of rows that are not degenerate.
        k: number of draws.
        rule: ``"systematic"`` (one offset in [0, q) for all slots), ``"stratified"`` (one a slot), ``"multinomial"``
            (independent draws), ``"residual"`` (``w div q`` copies; the rest by independent draws from the remainders).
        random: 64-bit words ``[R, 1]`` for systematic, else ``[R, k]``.

    Returns:
        int64 ``[R, k]``.
    """
    m = fold.points.shape[1]
    total = fold.total[:, None]
    if rule == "multinomial":
        return _index(fold.points, mulhi64(random, total).sort(-1).values)
    q = (total + k - 1) // k
    after = torch.arange(m, device=total.device) >= fold.largest[:, None]
    points = fold.points + torch.where(after, k * q - total, 0)
    if rule in ("systematic", "stratified"):
        return _index(points, torch.arange(k, device=total.device) * q + mulhi64(random, q))
    share = points.diff(dim=-1, prepend=torch.zeros_like(total))
    copies = share // q
    remainder = (share - copies * q).cumsum(-1)
    left = k - copies.sum(-1, keepdim=True)
    targets = mulhi64(random, remainder[:, -1:])
    extra = _index(remainder, targets).clamp(max=m - 1)
    counts = copies + _counts(extra, m, torch.arange(k, device=total.device) < left)
    return _repeat(counts, k)


def best(log_weights: Tensor, k: int, rule: str, random: Tensor | None) -> Tensor:
    """Take the best ``k`` of each row, descending by score, ties to the lowest index.

    Args:
        log_weights: ``[R, M]``.
        k: number to take; a row with fewer items of nonzero weight repeats them from the best on.
        rule: ``"argmax"`` (``k`` times the best), ``"topk"`` or ``"gumbel_topk"`` (scores have Gumbel noise added: a
            draw without replacement).
        random: 64-bit words ``[R, M]``, for ``"gumbel_topk"``.

    Returns:
        int64 ``[R, k]``; rows without any nonzero weight hold anything.
    """
    score = log_weights.double()
    if random is not None:
        uniform = (((random >> 12) & (2**52 - 1)).double() + 0.5) * 2.0**-52
        score = score + -log(-log(uniform))
    alive = log_weights >= -MAX_LOG_WEIGHT
    order = torch.where(alive, score, -torch.inf).sort(dim=-1, descending=True, stable=True).indices
    usable = torch.ones_like(alive[:, :1]) if rule == "argmax" else alive.sum(-1, keepdim=True).clamp(min=1)
    return order.gather(1, torch.arange(k, device=order.device) % usable)


def keep_slots(ancestors: Tensor) -> Tensor:
    """Reorder ``[R, M]`` ancestors so that survivors stay in place.

    An item drawn at least once keeps its own slot; the slots of the others, in increasing order, take the surplus
    copies in increasing order of ancestor.
    """
    m = ancestors.shape[1]
    counts = _counts(ancestors, m, torch.ones((), dtype=torch.int64, device=ancestors.device))
    dead = counts == 0
    surplus = (counts - 1).clamp(min=0).cumsum(-1)
    taken = _index(surplus, dead.cumsum(-1) - 1)
    return torch.where(dead, taken, torch.arange(m, device=ancestors.device))


def select(
    log_weights: Tensor, k: int, rule: str, order: str, seeds: Tensor, step: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ancestors ``[G, P, k]`` int32, log-mean-weight and effective sample size ``[G, P]`` float64.

    Args:
        log_weights: ``[G, P, M]`` float32 or float64, no NaN, none above 1e9. Below -1e9 is a weight of zero.
        k: number of draws a row.
        rule: see `draw` and `best`.
        order: ``"sorted"`` or ``"slots"`` (needs ``k = M``, see `keep_slots`).
        seeds: ``[G]`` int64.
        step: the step of the counter.

    A degenerate row gives log-mean-weight ``-inf``, ESS 0 and ancestor ``i mod M`` in slot ``i``.
    """
    groups, parents, m = log_weights.shape
    x = log_weights.reshape(-1, m)
    seed = seeds.repeat_interleave(parents)
    parent = torch.arange(parents, device=x.device).repeat(groups)
    f = fold(x)
    if rule in ("argmax", "topk", "gumbel_topk"):
        ancestors = best(x, k, rule, words(seed, parent, m, step) if rule == "gumbel_topk" else None)
    else:
        dead = (f.total == 0)[:, None]
        usable = f._replace(points=torch.where(dead, 1, f.points), total=f.total.clamp(min=1))
        ancestors = draw(usable, k, rule, words(seed, parent, 1 if rule == "systematic" else k, step))
    if order == "slots":
        ancestors = keep_slots(ancestors)
    identity = torch.arange(k, device=x.device) % m
    ancestors = torch.where((f.total == 0)[:, None], identity, ancestors).to(torch.int32)
    shape = (groups, parents)
    return ancestors.view(*shape, k), f.log_mean_weight.view(shape), f.ess.view(shape)
