"""Draws of tokens by exact inverse CDF over integer weights, the mirror of ``csrc/core/categorical.h``.

Rows of logits are tiles ``[R, B]``; a row that is wider than a block of 512 is read block by block.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastguide.triton.numerics.exp import MAX_LOG_WEIGHT, block_exponent, scaled_weight
from fastguide.triton.numerics.philox import mulhi64

TOKEN_BLOCK = tl.constexpr(512)
OK = tl.constexpr(0)
INVALID_VALUE = tl.constexpr(1)
DEGENERATE = tl.constexpr(2)
OUT_OF_RANGE = tl.constexpr(3)
NO_EXPONENT = tl.constexpr(-(2**40))
LEAST_KEY = tl.constexpr(-0x7F800001)
"""The `ordered` of -inf."""


@triton.jit
def scale_logits(logits, bias, inside, inverse_temperature):
    """Return ``(logits + bias) * inverse_temperature`` in float32 from pointers, ``bias`` or None; -inf where not inside."""
    y = tl.load(logits, mask=inside, other=0.0).to(tl.float32)
    if bias is not None:
        y = y + tl.load(bias, mask=inside, other=0.0)
    return tl.where(inside, y * inverse_temperature, float("-inf"))


@triton.jit
def invalid_values(y):
    """Say where values are NaN, +inf or above 1e9."""
    return (y <= MAX_LOG_WEIGHT) == 0


@triton.jit
def row_codes(invalid, most):
    """Return the codes of rows from whether one of their values is invalid, and from their largest value."""
    return tl.where(invalid, INVALID_VALUE, tl.where(most < -MAX_LOG_WEIGHT, DEGENERATE, OK))


@triton.jit
def share_of_total(share, total):
    """Return ``ceil(total * share / 2^64)``; ``share`` 64 unsigned bits."""
    return mulhi64(share, total) + ((share.to(tl.uint64) * total.to(tl.uint64)) != 0).to(tl.int64)


@triton.jit
def ordered(y):
    """Return int32 in the order of float32 ``y`` (no NaN), -0 that of +0."""
    bits = (y + 0.0).to(tl.int32, bitcast=True)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@triton.jit
def value_of(key):
    """Return the float32 whose `ordered` is ``key``."""
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def weigh(y, most):
    """Return int64 weights of rows ``[R, B]`` of one block each and largest values ``[R]``, their exponents and sums.

    Rows may be dead.
    """
    alive = (most >= -MAX_LOG_WEIGHT) & (most <= MAX_LOG_WEIGHT)
    exponent = block_exponent(tl.where(alive, most, 0.0))
    weights = scaled_weight(tl.where(alive[:, None], y, float("-inf")), exponent[:, None])
    return weights, tl.where(alive, exponent, NO_EXPONENT), tl.sum(weights, 1)


@triton.jit
def largest_share(most, exponent, total):
    """Return float64: the probability of a token of log-weight ``most`` in a row of a total at an exponent."""
    return scaled_weight(most, exponent).to(tl.float64) / tl.maximum(total, 1).to(tl.float64)


@triton.jit
def block_threshold(y, top_k, top_p):
    """Return ``[R]``: what the tokens of rows ``[R, B]`` of one block must reach to be kept.

    ``top_k`` 0 and ``top_p`` 0 (uint64, a fraction of 2^64) keep all. Both thresholds are found bit by bit, the largest
    value that enough tokens, or enough weight, reach.
    """
    keys = ordered(y).to(tl.int64)
    least = tl.full([y.shape[0]], LEAST_KEY, tl.int64)
    if top_k > 0:
        for bit in range(32):
            candidate = least + (tl.full([], 1, tl.int64) << (31 - bit))
            enough = tl.sum((keys >= candidate[:, None]).to(tl.int32), 1) >= top_k
            least = tl.where(enough, candidate, least)
    bound = least
    if top_p != 0:
        kept = tl.where(keys >= least[:, None], y, float("-inf"))
        weights, _, total = weigh(kept, tl.max(kept, 1))
        needed = share_of_total(top_p, total)
        bound = tl.full([y.shape[0]], LEAST_KEY, tl.int64)
        for bit in range(32):
            candidate = bound + (tl.full([], 1, tl.int64) << (31 - bit))
            enough = tl.sum(tl.where(keys >= candidate[:, None], weights, 0), 1) >= needed
            bound = tl.where(enough, candidate, bound)
    return value_of(tl.maximum(bound, least).to(tl.int32))
