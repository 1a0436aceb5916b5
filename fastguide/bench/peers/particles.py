"""The particles package (numba inside), from log-weights to ancestors.

``Weights`` is what the package's own samplers make of log-weights: it has the log-mean-weight and the effective sample
size, as ours has. ``normalise`` leaves both out. Both are given log-weights in float32 and, at no charge for the conversion,
in float64. Float32 ends at `MOST_FLOAT32` log-weights: beyond, the running sum of the package falls short of its last points,
and it reads on past the end of the weights (ancestors out of range at 2^23).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastguide.bench.peers import ABSENT, package

FORMS = ("Weights", "normalise")
MOST_FLOAT32 = 2**20
NAMES = tuple(f"particles ({form}{dtype})" for dtype in ("", ", float64") for form in FORMS)


def resampling(rule: str, log_weights: Tensor) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """Return the competitors for a rule, and those absent."""
    module = package("particles.resampling")
    if module is None:
        return {}, dict.fromkeys(NAMES, ABSENT)
    m, draw = len(log_weights), getattr(module, rule)

    def weights(array: Any) -> tuple[Any, float, float]:
        w = module.Weights(lw=array)
        return draw(w.W, m), w.log_mean, w.ESS

    def normalise(array: Any) -> tuple[Any]:
        return (draw(module.exp_and_normalise(array), m),)

    found: dict[str, Callable[[], Any]] = {}
    absent: dict[str, str] = {}
    for dtype in dict.fromkeys((log_weights.dtype, torch.float64)):
        array = log_weights.to(dtype).numpy()
        for name, form in zip(NAMES if dtype == torch.float32 else NAMES[2:], (weights, normalise), strict=False):
            if dtype == torch.float32 and m > MOST_FLOAT32:
                absent[name] = "its float32 sums would read past the end of the weights"
            else:
                found[name] = partial(form, array)
    return found, absent
