"""The status of operations that report more than one kind of trouble: the first by stage, then by index, then by code.

Word 0 of a status (`fastguide.triton._launch`), ``stage << 61 | index * 8 + code``, is lowered by ``atomic_min``: a total
order, so programs agree on the first whatever their order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastguide.triton import _launch

NEVER = tl.constexpr(_launch.NEVER)
RANGES = tl.constexpr(0)
"""Indices out of range come before bad rows."""
RANKS = tl.constexpr(1)
"""Rows that could not be ranked come before those that could not be drawn from: of these not every one was read."""
ROWS = tl.constexpr(2)
_STAGE_BITS = tl.constexpr(61)


@triton.jit
def trouble(bad, index, code, stage: tl.constexpr):
    """Return the words of trouble at an int64 index where ``bad``, and `NEVER` elsewhere."""
    return tl.where(bad, (index * 8 + code) | (stage << _STAGE_BITS), NEVER)


@triton.jit
def report(status, troubles):
    """Lower the status to the least of the words of a tensor."""
    least = tl.min(troubles)
    tl.atomic_min(status, least, mask=least < NEVER)
