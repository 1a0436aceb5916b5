"""Launcher of ``csrc/cuda/select.cu``: the update of log-weights and the selection that may follow."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastguide.cuda import _module
from fastguide.cuda._module import address


def reweight_select(
    inputs: Sequence[Tensor | None],
    betas: Tensor | None,
    beta: float,
    previous_betas: Tensor | None,
    previous_beta: float,
    rule: int,
    ess_threshold: float,
    seeds: Tensor | None,
    seed: int,
    step: int | Tensor,
    outputs: Sequence[Tensor],
    status: Tensor,
    states: Sequence[Tensor] = (),
) -> None:
    """Update weights, select, and let states follow: in the launches of selection, where those fill the device.

    Args:
        inputs: log-weights, values, previous values, log-ratio and running values, contiguous ``[N]`` or ``[G, N]``.
        rule: its code; see `fastguide.cuda.launcher`.
        outputs: log-weights, values, running values, ancestors, resampled, log-Z increment and effective sample size.
        step: a number, or an int64 tensor ``[1]`` on the device.
        status: int64 ``[5]``, see `fastguide.triton`.
        states: up to 8 contiguous tensors ``[G * N, ...]`` to move in place.
    """
    log_weights, running = inputs[0], inputs[4]
    assert log_weights is not None
    cuda, device, items = _module.module(), log_weights.device, log_weights.shape[-1]
    groups = log_weights.numel() // items
    if seeds is not None:
        seeds = seeds.contiguous()
    workspace = _module.workspace(cuda.select_bytes(groups, items, items, True), device)
    _module.call(
        cuda.reweight_select,
        device,
        *map(address, inputs),
        0 if running is None else running.element_size(),
        log_weights.dtype is torch.float64,
        groups,
        items,
        address(betas),
        address(previous_betas),
        beta,
        previous_beta,
        rule,
        ess_threshold,
        *_module.randomness(seeds, seed, step),
        *map(address, outputs),
        status.data_ptr(),
        workspace.data_ptr(),
        [x.data_ptr() for x in states],
        [x.nbytes // log_weights.numel() for x in states],
    )
