"""numpy alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastguide.bench.peers import all_cores


def systematic(log_weights: Tensor) -> Callable[[], Any]:
    """Exponentials, prefix sum, counts of points below each prefix, ``repeat``: no search."""
    x = log_weights.numpy()
    m = len(x)
    random, index = np.random.default_rng(0), np.arange(m, dtype=np.int32)

    def call() -> tuple[Any, float, float]:
        largest = x.max()
        weights = np.exp(x - largest)
        total = weights.sum()
        ess = total * total / np.dot(weights, weights)
        prefix = np.cumsum(weights, dtype=np.float64)
        prefix *= m / prefix[-1]
        prefix -= random.random()
        below = np.ceil(prefix, out=prefix).astype(np.int32)
        np.minimum(below, m, out=below)
        below[-1] = m
        return np.repeat(index, np.diff(below, prepend=np.int32(0))), largest + math.log(total / m), ess

    return call


def unique_rows(rows: Tensor) -> Callable[[], Any]:
    """``np.unique`` of rows as opaque bytes, which are sorted as one value each."""
    array = rows.numpy()
    opaque = array.view(f"V{array.shape[1] * array.itemsize}")[:, 0]
    return lambda: np.unique(opaque, return_index=True, return_inverse=True, return_counts=True)


def dictionary(rows: Tensor) -> Callable[[], Any]:
    """A Python dictionary of the rows' bytes: no sort."""
    array = rows.numpy()
    opaque = array.view(f"V{array.shape[1] * array.itemsize}")[:, 0]

    def call() -> tuple[Any, Any, Any, Any]:
        known: dict[bytes, int] = {}
        inverse = np.fromiter((known.setdefault(row, len(known)) for row in opaque.tolist()), np.int64, len(opaque))
        representatives = np.empty(len(known), np.int64)
        representatives[inverse[::-1]] = np.arange(len(opaque))[::-1]
        return opaque[representatives], representatives, inverse, np.bincount(inverse)

    return call


class Normals:
    """Standard normals from numpy's ziggurat, a generator a thread."""

    def __init__(self) -> None:
        self.threads = torch.get_num_threads()
        seeds = np.random.SeedSequence(0).spawn(self.threads)
        self.generators = [np.random.Generator(np.random.SFC64(seed)) for seed in seeds]
        with all_cores():
            self.pool = ThreadPoolExecutor(self.threads)
            # Threads start with their first task.
            list(self.pool.map(lambda _: sum(range(10**5)), range(4 * self.threads)))

    def __call__(self, out: Tensor) -> None:
        """Fill a float32 tensor."""
        parts = np.array_split(out.numpy().reshape(-1), self.threads)
        list(self.pool.map(lambda g, part: g.standard_normal(out=part, dtype=np.float32), self.generators, parts))
