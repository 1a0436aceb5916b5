"""Philox4x32-10 and the layout of its counter, the mirror of ``csrc/core/philox.h``."""

from __future__ import annotations

import triton
import triton.language as tl

from fastguide.reference.philox import Stream

PRIOR = tl.constexpr(int(Stream.PRIOR))
POSITIONS = tl.constexpr(int(Stream.POSITIONS))
TOKENS = tl.constexpr(int(Stream.TOKENS))
NOISE = tl.constexpr(int(Stream.NOISE))
SELECT = tl.constexpr(int(Stream.SELECT))
VALUE = tl.constexpr(int(Stream.VALUE))
ACCEPT = tl.constexpr(int(Stream.ACCEPT))
USER = tl.constexpr(int(Stream.USER))


@triton.jit
def philox(key, c0, c1, c2, c3):
    """Return the four uint32 words of 64-bit keys and counters broadcast together; tensors of any integer dtype.

    Args:
        key: a group's seed. c0: word block. c1: slot. c2: position block. c3: from `counter_word`.
    """
    k0, k1 = key.to(tl.uint32), (key.to(tl.uint64) >> 32).to(tl.uint32)
    return tl.philox_impl(c0.to(tl.uint32), c1.to(tl.uint32), c2.to(tl.uint32), c3.to(tl.uint32), k0, k1)


@triton.jit
def word64(low, high):
    """Return the uint64 ``high << 32 | low`` of two uint32 words."""
    return (high.to(tl.uint64) << 32) | low.to(tl.uint64)


@triton.jit
def mulhi64(a, b):
    """Return ``floor(a * b / 2^64)`` as int64, ``a`` read as 64 unsigned bits and ``0 <= b < 2^63``."""
    return tl.umulhi(a.to(tl.uint64), b.to(tl.uint64)).to(tl.int64)


@triton.jit
def counter_word(step, stream: tl.constexpr):
    """Return the last word of the counter; ``step`` is a number, or a pointer to one so that graphs can be replayed."""
    return number(step).to(tl.uint32) * 16 + stream


@triton.jit
def number(x):
    """Return ``x``, or what it points to, as int64."""
    if isinstance(x, int):  # a launcher's number 1, which Triton makes a constant
        return tl.full([], x, tl.int64)
    elif x.dtype.is_ptr():
        return tl.load(x).to(tl.int64)
    else:
        return x.to(tl.int64)


@triton.jit
def expand_seed(seed, g):
    """Return the int64 seed, in ``[0, 2^63)``, that group ``g`` gets from one integer."""
    none = g.to(tl.uint32) * 0
    w0, w1, _, _ = philox(seed, g, g.to(tl.int64) >> 32, none, none - 1)
    return (word64(w0, w1) >> 1).to(tl.int64)
