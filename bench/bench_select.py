"""`select` against the particles package and a composition of torch operations, from log-weights to ancestors.

Ours returns ancestors, log-mean-weight and effective sample size in one call, and so do the composition and
``particles (Weights)``: `Weights` is what the package's own samplers make of log-weights. ``particles (normalise)`` leaves
both out. Peers run in float32 as ours; outputs are allocated by every call. Use ``OMP_PROC_BIND=true`` on a quiet machine.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
import torch
from timing import alternate, save, table
from torch import Tensor

from fastguide.ops import select


def compose(log_weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    m = len(log_weights)
    weights = torch.softmax(log_weights, 0)
    points = (torch.arange(m) + torch.rand(1)) / m
    ancestors = torch.searchsorted(weights.cumsum(0), points).clamp_(max=m - 1)
    return ancestors, torch.logsumexp(log_weights, 0) - math.log(m), 1.0 / weights.square().sum()


def weigh_and_resample(resampling: Any, log_weights: np.ndarray, m: int) -> tuple[np.ndarray, float, float]:
    weights = resampling.Weights(lw=log_weights)
    return resampling.systematic(weights.W, m), weights.log_mean, weights.ESS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2**10, 2**20, 2**23])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-save", action="store_true")
    args = parser.parse_args()
    rows = []
    for m in args.sizes:
        log_weights = torch.randn(m, generator=torch.Generator().manual_seed(0))
        competitors = {"fastguide": lambda x=log_weights: select(x), "torch": lambda x=log_weights: compose(x)}
        try:
            from particles import resampling
        except ImportError:
            print("particles is not installed: left out")
        else:
            array = log_weights.numpy()
            competitors["particles (normalise)"] = lambda a=array, m=m: resampling.systematic(
                resampling.exp_and_normalise(a), m
            )
            competitors["particles (Weights)"] = lambda a=array, m=m, r=resampling: weigh_and_resample(r, a, m)
        seconds = alternate(competitors, rounds=args.rounds)
        table(f"systematic, N = {m}, {torch.get_num_threads()} threads", seconds, "fastguide")
        rows.append({"rule": "systematic", "n": m, "threads": torch.get_num_threads(), "seconds": seconds})
    if not args.no_save:
        print(f"written to {save('select', rows)}")


if __name__ == "__main__":
    main()
