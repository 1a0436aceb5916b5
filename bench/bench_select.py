"""`select` and `reweight_select` against the particles package and compositions of torch operations.

Ours returns ancestors, log-mean-weight and effective sample size in one call, and so do the composition and
``particles (Weights)``: `Weights` is what the package's own samplers make of log-weights. ``particles (normalise)`` leaves
both out. Peers run in float32 as ours; outputs are allocated by every call but in the lines marked ``out=``; ``copy_`` of the
log-weights into warm memory is a floor. Use ``OMP_PROC_BIND=true`` on a quiet machine.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from timing import alternate, save, table
from torch import Tensor

from fastguide.ops import move, reweight_select, select

try:
    from particles import resampling
except ImportError:
    resampling = None
    print("particles is not installed: left out")

Competitors = dict[str, Callable[[], Any]]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def compose(log_weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    m = len(log_weights)
    weights = torch.softmax(log_weights, 0)
    points = (torch.arange(m) + torch.rand(1)) / m
    ancestors = torch.searchsorted(weights.cumsum(0), points).clamp_(max=m - 1)
    return ancestors, torch.logsumexp(log_weights, 0) - math.log(m), 1.0 / weights.square().sum()


def weigh_and_resample(log_weights: np.ndarray, m: int) -> tuple[np.ndarray, float, float]:
    weights = resampling.Weights(lw=log_weights)
    return resampling.systematic(weights.W, m), weights.log_mean, weights.ESS


def systematic(m: int) -> Competitors:
    x = normal(m)
    out, copy, array = select(x), torch.empty_like(x), x.numpy()
    competitors: Competitors = {
        "fastguide": lambda: select(x),
        "fastguide (out=)": lambda: select(x, out=out),
        "torch": lambda: compose(x),
        "copy_": lambda: copy.copy_(x),
    }
    if resampling:
        competitors["particles (normalise)"] = lambda: resampling.systematic(resampling.exp_and_normalise(array), m)
        competitors["particles (Weights)"] = lambda: weigh_and_resample(array, m)
    return competitors


def multinomial(m: int) -> Competitors:
    x = normal(m)
    probabilities, array = torch.softmax(x, 0), x.numpy()
    competitors: Competitors = {
        "fastguide": lambda: select(x, rule="multinomial"),
        "torch.multinomial": lambda: torch.multinomial(probabilities, m, replacement=True),
        "fastguide (stratified)": lambda: select(x, rule="stratified"),
        "fastguide (residual)": lambda: select(x, rule="residual"),
    }
    if resampling:
        competitors["particles"] = lambda: resampling.multinomial(resampling.exp_and_normalise(array), m)
    return competitors


def one_of_few(*shape: int) -> Competitors:
    x = normal(*shape)
    rows = x.view(-1, shape[-1])
    probabilities = torch.softmax(rows, -1)
    return {
        "fastguide": lambda: select(x, 1, rule="multinomial"),
        "fastguide (argmax)": lambda: select(x, 1, rule="argmax"),
        "torch.multinomial": lambda: torch.multinomial(probabilities, 1, replacement=True),
        "torch.multinomial of softmax": lambda: torch.multinomial(torch.softmax(rows, -1), 1),
        "Gumbel-argmax": lambda: (rows - torch.empty_like(rows).exponential_().log()).argmax(-1),
    }


def ranked(m: int, k: int) -> Competitors:
    x = normal(m)
    return {
        "fastguide (gumbel_topk)": lambda: select(x, k, rule="gumbel_topk"),
        "fastguide (topk)": lambda: select(x, k, rule="topk"),
        "torch.topk": lambda: torch.topk(x, k),
        "Gumbel-topk": lambda: torch.topk(x - torch.empty_like(x).exponential_().log(), k),
    }


def reweighting(m: int) -> Competitors:
    log_weights, values, previous = (normal(m, seed=seed) for seed in range(3))

    def separate() -> tuple[Tensor, ...]:
        updated = log_weights + (2.0 * values - previous)
        drawn = select(updated, order="slots")
        updated.zero_()
        return (updated, *move([values], drawn.ancestors), *drawn)

    return {
        "fastguide": lambda: reweight_select(log_weights, values, previous, 2.0, 1.0, ess_threshold=1.0),
        "separate operations": separate,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2**10, 2**20, 2**23])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    cases: dict[str, Callable[[], Competitors]] = {
        **{f"systematic, N = {m}": lambda m=m: systematic(m) for m in args.sizes},
        "multinomial, N = 1048576": lambda: multinomial(2**20),
        "one of 8 in each of 65536 groups": lambda: one_of_few(65_536, 1, 8),
        "one of 8 for each of 65536 parents": lambda: one_of_few(1, 65_536, 8),
        "best 64 of 4194304": lambda: ranked(2**22, 64),
        "reweight_select, N = 1048576": lambda: reweighting(2**20),
    }
    rows = []
    for name, competitors in cases.items():
        if args.only not in name:
            continue
        timed = competitors()
        seconds = alternate(timed, rounds=args.rounds)
        table(f"{name}, {torch.get_num_threads()} threads", seconds, next(iter(timed)))
        rows.append({"case": name, "threads": torch.get_num_threads(), "seconds": seconds})
    if not args.no_save:
        print(f"written to {save('select', rows)}")


if __name__ == "__main__":
    main()
