"""`reweight_select` against the separate operations that it fuses: our own, and torch's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from fastguide import ops
from fastguide.bench.case import OURS, Bar, Case, Sizes, require
from fastguide.bench.peers import torch as torch_peer
from fastguide.bench.select import range_of

SEPARATE = f"{OURS}, separate ops"
BETA, THRESHOLD = 1.0, 0.9


def cases(sizes: Sizes) -> Iterator[Case]:
    """Yield a step of one group that resamples."""
    for n in sizes.of([2**10], [2**10, 2**14, 2**18, 2**20, 2**22], range_of(10, 26), 80):
        yield resampling(n)


def resampling(n: int) -> Case:
    """Weights from changes of value; the effective sample size (0.37 N) is below the threshold."""
    generator = torch.Generator().manual_seed(0)
    log_weights = torch.zeros(n)
    values, previous = (torch.randn(n, generator=generator) * 0.5**0.5 for _ in range(2))
    updated = BETA * values - BETA * previous
    expected = float((torch.softmax(updated.double(), 0) * values).sum())

    def fused() -> Any:
        return ops.reweight_select(log_weights, values, previous, BETA, BETA, ess_threshold=THRESHOLD).values

    def separate() -> Any:
        w = torch.mul(values, BETA).sub_(previous, alpha=BETA).add_(log_weights)
        drawn = ops.select(w, order="slots")
        if float(drawn.ess) >= THRESHOLD * n:
            return values
        w.zero_()
        return ops.move(values, drawn.ancestors)

    def eager() -> Any:
        w = torch.mul(values, BETA).sub_(previous, alpha=BETA).add_(log_weights)
        ancestors, _, ess = torch_peer.systematic(w)
        if float(ess) >= THRESHOLD * n:
            return values
        w.zero_()
        return values[ancestors]

    def check(name: str, got: Any) -> None:
        require(got.shape == (n,), f"shape {list(got.shape)}")
        mean = float(got.double().mean())
        require(abs(mean - expected) < 6 / n**0.5 + 0.02, f"mean value {mean:.4f} and not {expected:.4f}")

    competitors: dict[str, Callable[[], Any]] = {OURS: fused, SEPARATE: separate, "torch (eager)": eager}
    # Three read; log-weights, values and ancestors written.
    return Case("reweight_select", "systematic", n, competitors, 24 * n, check, {"ess_threshold": THRESHOLD})


def bars() -> Iterator[Bar]:
    """Yield the figure to reach."""
    yield Bar("reweight_select, N = 2^20", lambda: resampling(2**20), "our own separate ops", (SEPARATE,), 1.3)
