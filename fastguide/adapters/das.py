r"""The resampling of DAS (``das/smc_utils.py``), on `fastguide.ops`: all batch elements in one call.

    from fastguide.adapters.das import adaptive_tempering, resampling_function    # was: from das.smc_utils import …

What is right here and not there:

- `adaptive_tempering` finds the scale; theirs takes at most 500 steps of at most 1e-4 from ``min_scale`` and stops short of any
  scale that is farther away than 0.05;
- ``"residual"`` draws from all particles; theirs, of R left to draw, from the first R only;
- NaN and a batch element without weight are errors.

``compat=True`` does the first two as they do. Random numbers follow ``np.random.seed``, as theirs do.

Source: Kim et al., 2501.05803.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastguide import ops
from fastguide.adapters._strategies import check_strategy, resample
from fastguide.guidance.tempering import highest


def compute_ess(w: Tensor, dim: int = -1) -> Tensor:
    """Return the effective sample size of weights."""
    return w.sum(dim=dim) ** 2 / (w**2).sum(dim=dim)


def normalize_log_weights(log_weights: Tensor, dim: int) -> Tensor:
    """Return log-weights whose weights sum to 1."""
    return torch.log_softmax(log_weights, dim)


def normalize_weights(log_weights: Tensor, dim: int = -1) -> Tensor:
    """Return weights that sum to 1."""
    return torch.softmax(log_weights, dim)


def compute_ess_from_log_w(log_w: Tensor, dim: int = -1) -> Tensor:
    """Return the effective sample size of log-weights."""
    return compute_ess(normalize_weights(log_w, dim), dim)


def resampling_function(
    resample_strategy: str = "systematic",
    ess_threshold: float | None = None,
    verbose: bool = False,
    *,
    compat: bool = False,
) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Return a function that resamples the batch elements whose weights are uneven.

    Args:
        resample_strategy: ``"systematic"``, ``"stratified"``, ``"residual"``, ``"multinomial"`` or ``"ssp"``.
        ess_threshold: resample where the effective sample size is below this fraction of P; None: everywhere.
        verbose: print a line when something is resampled.
        compat: see the head of this file.

    Returns:
        ``resample(log_w [batch, P]) -> (indices [batch, P] int32, is_resampled [batch] bool, log_w)``: the very ``log_w`` that
        was given, overwritten by ``-log P`` where resampled and by normalised log-weights elsewhere.
    """
    strategy = check_strategy(resample_strategy)

    def resample_batch(log_w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if log_w.dim() != 2:
            raise AssertionError(f"Dimension of log_w should be 2, got shape {list(log_w.shape)}")
        indices, is_resampled, _, _ = resample(log_w, strategy, ess_threshold, compat)
        if verbose and bool(is_resampled.any()):
            print("resample")
        # Equal log-weights normalise to -log P.
        log_w.copy_(normalize_log_weights(log_w.masked_fill(is_resampled[:, None], 0.0), -1))
        return indices, is_resampled, log_w

    return resample_batch


def adaptive_tempering(
    log_w: Tensor,
    log_prob_diffusion: Tensor,
    log_twist_func: Tensor,
    log_prob_proposal: Tensor,
    log_twist_func_prev: Tensor,
    min_scale: Tensor,
    ess_threshold: float = 1.0,
    num_iterations: int = 500,
    *,
    compat: bool = False,
) -> Tensor:
    """Return for each batch element the scale of its twist at which the effective sample size is ``ess_threshold · P``.

    The log-weights are ``log_w + log_prob_diffusion + scale · log_twist_func - log_prob_proposal - log_twist_func_prev``. The
    scale is 1 where they are even enough there, and ``min_scale`` where they are uneven already.

    Args:
        log_w: ``[batch, P]``, as the next four.
        log_prob_diffusion: log-density of the model's own step.
        log_twist_func: log-twist before scaling.
        log_prob_proposal: log-density of the proposal.
        log_twist_func_prev: the last step's, already scaled.
        min_scale: ``[batch]`` the smallest scale allowed, at most 1.
        ess_threshold: in [0, 1].
        num_iterations: of ``compat=True``; otherwise a bisection in one call for all batch elements, to 1e-9.
        compat: descend as they do, see the head of this file.

    Returns:
        ``[batch]`` float32.
    """
    twist = log_twist_func.detach()
    base = (log_w + log_prob_diffusion - log_prob_proposal - log_twist_func_prev).detach()
    low, target = min_scale.detach(), ess_threshold * twist.shape[-1]
    if low.shape != twist.shape[:1]:
        raise ValueError(
            f"min_scale: expected shape {list(twist.shape[:1])}, one a batch element, got {list(low.shape)}"
        )
    if compat:
        return _descend(base, twist, low, target, num_iterations)
    base, twist, zero = base.double(), twist.double(), torch.zeros_like(base, dtype=torch.float64)

    def ess(scale: Tensor) -> Tensor:
        return ops.reweight_select(base, twist, zero, scale, 0.0, ess_threshold=0.0).ess

    return highest(ess, target, low.double(), 1.0).float()


@torch.enable_grad()
def _descend(base: Tensor, twist: Tensor, low: Tensor, target: float, num_iterations: int) -> Tensor:
    """Take their steps of Adam, all batch elements side by side; one that stands still stays."""
    scale = low.clone().requires_grad_()
    optimizer = torch.optim.Adam([scale], lr=1e-4)
    moving = torch.ones_like(low, dtype=torch.bool)
    for _ in range(num_iterations):
        before = scale.detach().clone()
        optimizer.zero_grad()
        ess = compute_ess_from_log_w(base + scale[:, None] * twist)
        ((ess - target) ** 2).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        after = torch.minimum(torch.maximum(scale.detach(), low), torch.ones_like(low))
        scale.data = torch.where(moving, after, before)
        moving = moving & ((scale.detach() - before).abs() >= 1e-6)
        if not bool(moving.any()):
            break
    return scale.detach().float()
