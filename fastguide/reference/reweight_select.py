"""The specification of `fastguide.ops.reweight_select` in plain torch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastguide.reference.exp import MAX_LOG_WEIGHT
from fastguide.reference.select import fold, select


class Reweighted(NamedTuple):
    """``[G, N]`` tensors of the particles, then ``[G]`` ones of the groups."""

    log_weights: Tensor
    values: Tensor
    running: Tensor | None
    ancestors: Tensor
    resampled: Tensor
    log_z_increment: Tensor
    ess: Tensor


def reweight(
    log_weights: Tensor,
    values: Tensor,
    previous_values: Tensor,
    beta: Tensor,
    previous_beta: Tensor,
    log_ratio: Tensor | None,
) -> Tensor:
    """Return ``log_weights + ((beta * values - previous_beta * previous_values) + log_ratio)``, each operation rounded.

    All ``[G, N]`` of one dtype, the betas ``[G]``. A particle whose log-weight, value or log-ratio is ``-inf`` is dead:
    it gets ``-inf``, whatever its previous value.
    """
    now, before = (b.to(log_weights.dtype)[:, None] for b in (beta, previous_beta))
    update = now * values - before * previous_values
    dead = (log_weights == -torch.inf) | (values == -torch.inf)
    if log_ratio is not None:
        update = update + log_ratio
        dead = dead | (log_ratio == -torch.inf)
    return torch.where(dead, -torch.inf, log_weights + update)


def refused(inputs: list[Tensor], updated: Tensor) -> Tensor:
    """Return where an input is NaN or +inf, or the updated log-weight is NaN or above 1e9."""
    bad = ~(updated <= MAX_LOG_WEIGHT)
    for x in inputs:
        bad = bad | ~(x < torch.inf)
    return bad


def reweight_select(
    updated: Tensor,
    values: Tensor,
    running: Tensor | None,
    rule: str,
    ess_threshold: float,
    seeds: Tensor,
    step: int,
) -> Reweighted:
    """Resample the groups whose effective sample size is below ``ess_threshold * N``; ``updated`` is from `reweight`."""
    n = updated.shape[1]
    f = fold(updated)
    resampled = (f.total > 0) & (f.ess < ess_threshold * n)
    drawn = select(updated[:, None], n, rule, "slots", seeds, step)[0][:, 0]
    identity = torch.arange(n, dtype=torch.int32, device=updated.device)
    ancestors = torch.where(resampled[:, None], drawn, identity)
    index = ancestors.to(torch.int64)
    increment = torch.where(resampled, f.log_mean_weight, torch.where(f.total > 0, 0.0, -torch.inf))
    return Reweighted(
        torch.where(resampled[:, None], 0.0, updated),
        values.gather(1, index),
        None if running is None else running.gather(1, index),
        ancestors,
        resampled,
        increment,
        f.ess,
    )
