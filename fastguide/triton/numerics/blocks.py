"""Blocks of integer weights brought to one scale, the mirror of ``csrc/core/integer.h`` and of blocks in ``selection.h``.

Integers throughout: in whatever order programs and tiles add, the sums are the same.
"""

from __future__ import annotations

import triton
import triton.language as tl

_ROOM = tl.constexpr(1.5 * 2.0**62)


@triton.jit
def shift(x, by):
    """Return int64 ``x >= 0`` shifted left by ``by``, or right by ``-by``; a right shift of 63 or more gives zero."""
    left = x << tl.minimum(tl.maximum(by, 0), 62)
    return tl.where(by >= 0, left, x >> tl.minimum(tl.maximum(-by, 0), 63))


@triton.jit
def power_of_two(n):
    """Return ``2^n`` as float64 for int64 ``n`` in [-1022, 1023], exactly."""
    return ((n + 1023) << 52).to(tl.float64, bitcast=True)


@triton.jit
def rough(terms, gap):
    """Return ``terms * 2^-gap`` in float64: the sums of these, in any order, bound what shifted terms come to."""
    return terms.to(tl.float64) * power_of_two(tl.maximum(-gap, -1000))


@triton.jit
def first_scale(total, largest: tl.constexpr):
    """Return the scale from which to try downwards, given the sum of `rough` terms; `largest` allows no more.

    With ``2^k <= total < 2^(k + 1)`` the sought scale, at which the shifted terms sum to at most about 2^62, is one of the
    four from this one down: 63 - k (where rounding made k too large by one) to 60 - k (where 61 - k exceeds a limit just
    below 2^62).
    """
    k = (total.to(tl.int64, bitcast=True) >> 52) - 1023
    return tl.where(total > 0, tl.minimum(63 - k, largest), largest)


@triton.jit
def guarded(terms, gap, total, scale):
    """Return the terms at a scale; zeros, lest their sum overflow, where ``total`` says that it exceeds 1.5 * 2^62."""
    return tl.where(total * power_of_two(scale) < _ROOM, shift(terms, scale - gap), 0)


@triton.jit
def fits(exact, total, scale, limit):
    """Say whether the terms at a scale, which `guarded` let through and which sum to ``exact``, are within ``limit``."""
    return (total * power_of_two(scale) < _ROOM) & (exact <= limit)
