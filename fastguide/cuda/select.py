"""Launcher of ``csrc/cuda/select.cu``: selection in rows."""

from __future__ import annotations

import torch
from torch import Tensor

from fastguide.cuda import _module


def select(
    log_weights: Tensor,
    k: int,
    rule: int,
    slots: bool,
    seeds: Tensor | None,
    seed: int,
    step: int | Tensor,
    ancestors: Tensor,
    log_mean_weight: Tensor,
    ess: Tensor,
    status: Tensor,
) -> None:
    """Select in each row of contiguous ``[M]``, ``[G, M]`` or ``[G, P, M]``.

    Args:
        rule: its code; see ``csrc/core/selection.h``.
        step: a number, or an int64 tensor ``[1]`` on the device.
        status: int64 ``[5]``, see `fastguide.triton`.
    """
    cuda, device, shape = _module.module(), log_weights.device, log_weights.shape
    items = shape[-1]
    rows = log_weights.numel() // items
    if seeds is not None:
        seeds = seeds.contiguous()
    workspace = _module.workspace(cuda.select_bytes(rows, items, k, slots), device)
    _module.call(
        cuda.select,
        device,
        log_weights.data_ptr(),
        log_weights.dtype is torch.float64,
        rows,
        shape[1] if len(shape) > 2 else 1,
        items,
        k,
        rule,
        slots,
        *_module.randomness(seeds, seed, step),
        ancestors.data_ptr(),
        log_mean_weight.data_ptr(),
        ess.data_ptr(),
        status.data_ptr(),
        workspace.data_ptr(),
    )
