"""`gaussian_step`: gather the parents, combine state and prediction, add noise."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from fastguide import ops
from fastguide.bench.case import OURS, Bar, Case, Sizes, require
from fastguide.bench.peers import numpy as numpy_peer
from fastguide.bench.peers import torch as torch_peer
from fastguide.bench.select import range_of

INTO = f"{OURS}, out="
EAGER, FRUGAL = "torch (eager)", "torch (in place)"
NUMPY = "torch (in place), numpy's normals in threads"
COEFFICIENTS = (0.9, 0.3, 0.5)


def cases(sizes: Sizes) -> Iterator[Case]:
    """Yield image-like states of 3,072 numbers and small ones of 64."""
    for d, last in ((3072, 13), (64, 18)):
        for n in sizes.of([64], [2**k for k in range(6, last, 3)], range_of(6, last + 2), d * 4 * 9):
            yield proposing(n, d)


def proposing(n: int, d: int) -> Case:
    """A child of each particle, gathered from a random ancestor."""
    generator = torch.Generator().manual_seed(0)
    x, prediction = (torch.randn(n, d, generator=generator) for _ in range(2))
    ancestors = torch.randint(0, n, (n,), generator=generator).sort().values
    a, b, sigma = COEFFICIENTS
    settings: Any = {"x_coefficient": a, "prediction_coefficient": b, "sigma": sigma, "ancestors": ancestors}
    out = torch.empty(n, 1, d)
    competitors: dict[str, Callable[[], Any]] = {
        OURS: lambda: ops.gaussian_step(x, prediction, **settings)[:, 0],
        INTO: lambda: ops.gaussian_step(x, prediction, **settings, out=out)[:, 0],
        EAGER: lambda: torch_peer.gaussian_eager(x, prediction, ancestors, *COEFFICIENTS),
        FRUGAL: torch_peer.GaussianFrugal(x, prediction, ancestors, COEFFICIENTS),
        NUMPY: torch_peer.GaussianFrugal(x, prediction, ancestors, COEFFICIENTS, numpy_peer.Normals()),
    }

    def check(name: str, got: Any) -> None:
        require(got.shape == x.shape, f"shape {list(got.shape)}")
        rows = slice(0, max(1, 2**20 // d))
        noise = (got[rows] - a * x[ancestors[rows]] - b * prediction[ancestors[rows]]).double() / sigma
        count = noise.numel()
        mean, variance = float(noise.mean()), float(noise.var())
        # 6 sigma: 1 / n for the mean, 2 / n for the variance.
        require(abs(mean) < 6 / count**0.5, f"mean of the noise {mean:.4f}")
        require(abs(variance - 1) < 6 * (2 / count) ** 0.5, f"variance of the noise {variance:.4f}")

    return Case("gaussian_step", f"D {d}", n, competitors, 12 * n * d, check, {"d": d})


def bars() -> Iterator[Bar]:
    """Yield the figures to reach."""
    what, ours = "gaussian_step + gather, N = 4096, D = 3,072", (OURS, INTO)
    yield Bar(what, lambda: proposing(4096, 3072), "eager torch", (EAGER,), 15, ours)
    yield Bar(what, lambda: proposing(4096, 3072), "frugal in-place torch", (FRUGAL,), 9, ours)
