"""The resampling strategies that DAS and the twisted diffusion sampler name, on `fastguide.ops.select`."""

from __future__ import annotations

import torch
from torch import Tensor

from fastguide import ops
from fastguide.adapters._seeds import numpy_seed

RULES = {
    "systematic": "systematic",
    "stratified": "stratified",
    "residual": "residual",
    "multinomial": "multinomial",
    "ssp": "systematic",
}
"""``"ssp"`` is drawn systematically: of both, counts are the floor or the ceiling of ``P W`` and unbiased."""


def check_strategy(strategy: str) -> str:
    """Return ``strategy``; as theirs, a ``KeyError`` refuses one that is unknown."""
    if strategy not in RULES:
        raise KeyError(f"resample_strategy: unknown {strategy!r}; choose one of {', '.join(RULES)}")
    return strategy


def resample(
    log_w: Tensor, strategy: str, ess_threshold: float | None, compat: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw ancestors in the groups whose effective sample size is below ``ess_threshold · P``, in all for None.

    Args:
        log_w: ``[G, P]`` log-weights.
        strategy: one of `RULES`.
        ess_threshold: in [0, 1], or None.
        compat: draw ``"residual"`` as they do, see `_residual_as_they_do`.

    Returns:
        ancestors ``[G, P]`` int32 (the identity where nothing is drawn), whether they were drawn ``[G]``, log-mean-weight
        ``[G]`` and effective sample size ``[G]``, float64.

    Raises:
        ValueError: a log-weight that is NaN or +inf, or an effective sample size outside its bounds.
        DegenerateWeights: a group without weight.
    """
    particles = log_w.shape[-1]
    if not log_w.is_floating_point():
        raise TypeError(f"log_w: expected floating point, got {log_w.dtype}")
    if log_w.dtype not in (torch.float32, torch.float64):
        log_w = log_w.float()
    drawn = ops.select(log_w.detach(), rule=RULES[strategy], seed=numpy_seed())
    ancestors, uneven = drawn.ancestors, torch.ones_like(drawn.ess, dtype=torch.bool)
    if compat and strategy == "residual":
        ancestors = torch.stack([_residual_as_they_do(row) for row in log_w.detach()])
    if ess_threshold is not None:
        uneven = drawn.ess < particles * ess_threshold
        stay = torch.arange(particles, dtype=torch.int32, device=log_w.device)
        ancestors = torch.where(uneven[:, None], ancestors, stay)
    return ancestors, uneven, drawn.log_mean_weight, drawn.ess


def _residual_as_they_do(log_w: Tensor) -> Tensor:
    """Draw one group ``[P]`` with their fault: of R particles left to draw none comes from beyond the first R."""
    share = len(log_w) * torch.softmax(log_w.double(), 0)
    copies = share.floor()
    left = len(log_w) - int(copies.sum())
    ancestors = torch.arange(len(log_w), device=log_w.device).repeat_interleave(copies.to(torch.int64))
    if left > 0:
        drawn = ops.select((share - copies).log(), left, rule="multinomial", seed=numpy_seed()).ancestors
        ancestors = torch.cat([ancestors, drawn.clamp(max=left - 1)])
    return ancestors.to(torch.int32)
