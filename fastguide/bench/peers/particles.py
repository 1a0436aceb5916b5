"""The particles package (numba inside), from log-weights to ancestors.

``Weights`` is what the package's own samplers make of log-weights: it has the log-mean-weight and the effective sample
size, as ours has. ``normalise`` leaves both out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fastguide.bench.peers import ABSENT, package

NAMES = ("particles (Weights)", "particles (normalise)")


def resampling(rule: str, log_weights: Tensor) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """Return the competitors for a rule, and those absent."""
    module = package("particles.resampling")
    if module is None:
        return {}, dict.fromkeys(NAMES, ABSENT)
    array, m, draw = log_weights.numpy(), len(log_weights), getattr(module, rule)

    def weights() -> tuple[Any, float, float]:
        found = module.Weights(lw=array)
        return draw(found.W, m), found.log_mean, found.ESS

    def normalise() -> tuple[Any]:
        return (draw(module.exp_and_normalise(array), m),)

    return dict(zip(NAMES, (weights, normalise), strict=True)), {}
