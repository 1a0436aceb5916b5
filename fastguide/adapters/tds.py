r"""``smc_FK`` of the twisted diffusion sampler (``smc_utils/feynman_kac_pf.py``), with the user's own M and G.

    from fastguide.adapters.tds import smc_FK     # was: from smc_utils.feynman_kac_pf import smc_FK

Arguments, returns and what M and G see are theirs. What is right here and not there: ``"residual"`` draws from all particles
(theirs, of R left to draw, from the first R only; ``compat=True`` does so too), weights that are not resampled keep the mean
of 1 that makes ``log_w_trace.logsumexp(1) - log P`` sum to log Z over the steps (one of their two copies is off by log P each
time), and NaN or a population without weight is an error. Random numbers follow ``np.random.seed``, as theirs do.

Source: Wu et al., 2306.17775; Chopin and Papaspiliopoulos, An Introduction to Sequential Monte Carlo, 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from fastguide import ops
from fastguide.adapters._strategies import check_strategy, resample
from fastguide.ops._checks import count


def smc_FK(  # noqa: N802 - their name
    M: Callable[..., Any],  # noqa: N803
    G: Callable[..., Any],  # noqa: N803
    resample_strategy: str,
    T: int,  # noqa: N803
    P: int,  # noqa: N803
    ess_threshold: float | None,
    verbose: bool = False,
    verbose_notebook: bool = False,
    log_xt_trace: bool = False,
    extra_vals: dict[Any, Any] | None = None,
    *,
    compat: bool = False,
) -> tuple[Tensor, Tensor, Tensor, Any, Tensor, Tensor, Tensor | None]:
    """Run a particle filter backwards in time, ``t = T … 0``.

    Args:
        M: ``M(t=, xtp1=, extra_vals=, P=) -> (x_t [P, ...], extra_vals)``; ``xtp1`` is None at T.
        G: ``G(t=, xtp1=, xt=, extra_vals=) -> [P]`` log-potential.
        resample_strategy: ``"systematic"``, ``"stratified"``, ``"residual"`` or ``"multinomial"``.
        T: the first time.
        P: particles.
        ess_threshold: resample where the effective sample size is below this fraction of P; 0 never, None always.
        verbose: a progress bar of tqdm.
        verbose_notebook: the one for notebooks.
        log_xt_trace: keep the particles of every step.
        extra_vals: handed from call to call; gets ``("resample_idcs", t)`` at each step.
        compat: see the head of this file.

    Returns:
        Particles ``[P, ...]``, their log-weights and normalised weights ``[P]``, ancestors ``[T, P]``, effective sample sizes
        ``[T + 1]``, log-weights ``[T + 1, P]``, and the particles of all steps ``[T + 1, P, ...]`` or None.
    """
    strategy = check_strategy(resample_strategy)
    count("P", P)
    extra_vals = extra_vals or {}
    indices_trace, ess_trace, log_w_trace, xt_trace = [], [], [], []
    xtp1, carried = None, torch.zeros(())
    for t in _times(T, verbose, verbose_notebook):
        xt, extra_vals = M(t=t, xtp1=xtp1, extra_vals=extra_vals, P=P)
        potential = torch.as_tensor(G(t=t, xtp1=xtp1, xt=xt, extra_vals=extra_vals)).detach()
        xt = torch.as_tensor(xt).detach()
        log_w = carried.to(potential) + potential
        if log_w.shape != (P,):
            raise ValueError(f"G: expected one log-potential a particle, [{P}], got shape {list(log_w.shape)}")
        never = ess_threshold == 0
        indices, uneven, log_mean, ess = resample(log_w[None], strategy, 1.0 if never else ess_threshold, compat)
        ess_trace.append(ess[0].to("cpu", log_w.dtype))
        log_w_trace.append(log_w.cpu())
        if log_xt_trace:
            xt_trace.append(xt.cpu())
        if t > 0:
            drawn = torch.arange(P, device=log_w.device) if never else indices[0].to(torch.int64)
            if not never:
                xt = ops.move(xt, drawn.to(xt.device))
                carried = torch.where(uneven, 0.0, log_w - log_mean.to(log_w.dtype))
            else:
                carried = log_w
            extra_vals[("resample_idcs", t)] = drawn
            indices_trace.append(drawn)
        xtp1 = xt
    return (
        xt,
        log_w,
        torch.softmax(log_w, 0),
        torch.stack(indices_trace) if indices_trace else indices_trace,
        torch.stack(ess_trace),
        torch.stack(log_w_trace),
        torch.stack(xt_trace) if log_xt_trace else None,
    )


def _times(first: int, verbose: bool, notebook: bool) -> Iterable[int]:
    times = range(first, -1, -1)
    if notebook or verbose:
        from tqdm.auto import tqdm
        from tqdm.notebook import tqdm as notebook_tqdm

        return notebook_tqdm(times) if notebook else tqdm(times)  # type: ignore[no-any-return]
    return times
