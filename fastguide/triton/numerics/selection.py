"""Arithmetic of selection, the mirror of ``csrc/core/selection.h``; `fastguide.reference.select` states the rules."""

from __future__ import annotations

import triton
import triton.language as tl

from fastguide.reference import select as _reference
from fastguide.triton.numerics.blocks import fits, guarded, power_of_two
from fastguide.triton.numerics.exp import MAX_LOG_WEIGHT, WEIGHT_BITS
from fastguide.triton.numerics.log import LN2, binary_exponent, binary_mantissa, log_fixed, log_mantissa
from fastguide.triton.numerics.philox import SELECT, counter_word, philox, word64

BLOCK = tl.constexpr(_reference.BLOCK)
SQUARE_DROP = tl.constexpr(_reference.SQUARE_DROP)
TOTAL_LIMIT = tl.constexpr(_reference.TOTAL_LIMIT)
LARGEST_SCALE = tl.constexpr(14)
NO_EXPONENT = tl.constexpr(-(2**40))
"""The exponent of a block without weight: below all others."""


@triton.jit
def usable(x):
    """Return log-weights with ``-inf`` for what is refused or a weight of zero."""
    return tl.where((x >= -MAX_LOG_WEIGHT) & (x <= MAX_LOG_WEIGHT), x, float("-inf"))


@triton.jit
def candidates(terms, gap, rough_total, first):
    """Return the terms ``[..., 4]`` at the four scales from ``first`` down; arguments broadcast against ``[4]`` last."""
    return guarded(terms, gap, rough_total, first - tl.arange(0, 4))


@triton.jit
def choose_scale(exact, rough_total, first, limit, AXIS: tl.constexpr):
    """Return the first of the four scales from ``first`` down whose sum, in ``exact`` ``[..., 4]``, fits, and that sum."""
    down = tl.arange(0, 4)
    good = fits(exact, rough_total, first - down, limit)
    chosen = tl.min(tl.where(good, down, 4), AXIS, keep_dims=True)
    scale = tl.sum(tl.where(down == chosen, first - down, 0), AXIS)
    return scale, tl.sum(tl.where(down == chosen, exact, 0), AXIS)


@triton.jit
def log_mean_weight(exponent, scale, total, m):
    """Return the logarithm of the mean of ``m`` weights of sum ``total``, ``-inf`` where that is 0."""
    mean = tl.maximum(total.to(tl.float64) / tl.full([], m, tl.float64), 1.0)
    k = binary_exponent(mean)
    log_mean = (exponent - WEIGHT_BITS - scale + k).to(tl.float64) * LN2 + log_mantissa(binary_mantissa(mean, k))
    return tl.where(total > 0, log_mean, float("-inf"))


@triton.jit
def effective_sample_size(total, scale, squares, drop, m):
    """Return ``(sum of w)^2 / (sum of w^2)`` in [1, m], a ratio within rounding of m as m; 0 where ``total`` is 0."""
    t = total.to(tl.float64)
    most = tl.full([], m, tl.float64)
    ratio = t * t / tl.maximum(squares.to(tl.float64), 1.0) * power_of_two(-2 * scale - drop - 2 * SQUARE_DROP)
    ess = tl.where(ratio >= most * (1.0 - 2.0**-48), most, tl.maximum(ratio, 1.0))
    return tl.where(total > 0, ess, 0.0)


@triton.jit
def reciprocal(q):
    """Return what `divide` takes with ``q``: ``1 / q``, rounded down by far more than the errors of its use."""
    return 1.0 / q.to(tl.float64) * (1.0 - 2.0**-50)


@triton.jit
def divide(x, q, inverse):
    """Return ``x div q`` as int64 for ``0 <= x`` and a quotient below 2^31; ``inverse`` is ``reciprocal(q)``."""
    a = (x.to(tl.float64) * inverse).to(tl.int64)
    return a + (x - a * q >= q).to(tl.int64)


@triton.jit
def select_word(seed, i, parent, step):
    """Return the ``i``-th 64-bit word that a row draws, as uint64."""
    w0, w1, w2, w3 = philox(seed, i.to(tl.int64) >> 1, parent, parent * 0, counter_word(step, SELECT))
    return tl.where((i & 1) == 0, word64(w0, w1), word64(w2, w3))


@triton.jit
def gumbel(word):
    """Return standard Gumbel noise of a 64-bit word; its top 52 bits give a uniform strictly inside (0, 1)."""
    uniform = ((word.to(tl.uint64) >> 12).to(tl.float64) + 0.5) * 2.0**-52
    return -log_fixed(-log_fixed(uniform))
