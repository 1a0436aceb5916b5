"""What a good engineer would write in numba: fused loops, parallel over torch's number of threads."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastguide.bench.peers import ABSENT, package

NAME = "numba (fused, parallel)"


def systematic(log_weights: Tensor) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """Return the competitor, or say that it is absent."""
    if package("numba") is None:
        return {}, {NAME: ABSENT}
    threads = _threads()
    chunk, fill = _selection()
    x, m = log_weights.numpy(), len(log_weights)
    weights, ancestors = np.empty_like(x), np.empty(m, np.int32)
    starts = np.linspace(0, m, threads + 1).astype(np.int64)
    random = np.random.default_rng(0)

    def call() -> tuple[Any, float, float]:
        largest, totals, squares = chunk(x, weights, starts)
        total = totals.sum()
        fill(weights, totals, starts, random.random(), ancestors)
        return ancestors, largest + math.log(total / m), total * total / squares.sum()

    return {NAME: call}, {}


def potts(states: Tensor, fields: Tensor, couplings: Tensor) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """Return the competitor: a loop over pairs, parallel over states."""
    if package("numba") is None:
        return {}, {"numba (parallel)": ABSENT}
    _threads()
    loop = _pairs()
    tokens, out = states.numpy(), np.empty(len(states), np.float32)
    h, j = fields.numpy(), couplings.numpy()
    return {"numba (parallel)": lambda: loop(tokens, h, j, out)}, {}


def _threads() -> int:
    numba = package("numba")
    of_torch = torch.get_num_threads()
    threads = min(of_torch, int(numba.config.NUMBA_NUM_THREADS))
    numba.set_num_threads(threads)
    torch.set_num_threads(of_torch)  # numba's is OpenMP's number, and so torch's
    return threads


@cache
def _selection() -> tuple[Any, Any]:
    numba = package("numba")
    compiled: Any = numba.njit(parallel=True, fastmath=True)

    def chunk(x: Any, weights: Any, starts: Any) -> Any:
        parts = len(starts) - 1
        largest = np.empty(parts, np.float64)
        for p in numba.prange(parts):
            top = x[starts[p]]
            for n in range(starts[p], starts[p + 1]):
                top = max(top, x[n])
            largest[p] = top
        shift = x.dtype.type(largest.max())
        totals, squares = np.empty(parts, np.float64), np.empty(parts, np.float64)
        for p in numba.prange(parts):
            total = square = 0.0
            for n in range(starts[p], starts[p + 1]):
                w = math.exp(x[n] - shift)
                weights[n] = w
                total += w
                square += w * w
            totals[p], squares[p] = total, square
        return largest.max(), totals, squares

    def fill(weights: Any, totals: Any, starts: Any, offset: float, ancestors: Any) -> None:
        parts, m = len(totals), len(ancestors)
        scale = m / totals.sum()
        for p in numba.prange(parts):
            prefix = totals[:p].sum()
            slot = max(0, math.ceil(prefix * scale - offset)) if p else 0
            for n in range(starts[p], starts[p + 1]):
                prefix += weights[n]
                end = min(m, math.ceil(prefix * scale - offset))
                while slot < end:
                    ancestors[slot] = n
                    slot += 1
            # The next part begins where the totals say, whatever was rounded on the way.
            last = m if p == parts - 1 else min(m, math.ceil(totals[: p + 1].sum() * scale - offset))
            while slot < last:
                ancestors[slot] = starts[p + 1] - 1
                slot += 1

    return compiled(chunk), compiled(fill)


@cache
def _pairs() -> Any:
    numba = package("numba")
    compiled: Any = numba.njit(parallel=True, fastmath=True)

    def pairs(states: Any, fields: Any, couplings: Any, out: Any) -> Any:
        rows, length = states.shape
        for n in numba.prange(rows):
            total = np.float32(0)
            for i in range(length):
                a = states[n, i]
                total += fields[i, a]
                for j in range(i + 1, length):
                    total += couplings[i, j, a, states[n, j]]
            out[n] = total
        return out

    return compiled(pairs)
