"""The two losses of a student, as functions of rows ``particle · T + step``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fastguide.processes.masked import MaskedProcess
from fastguide.reference.categorical import scale_logits
from fastguide.run import Run


def guided(
    student: nn.Module, run: Run, samples: Tensor, weights: Tensor, generator: torch.Generator
) -> Callable[[Tensor], Tensor]:
    """The loss of clean samples at random masks, each position as often as the process reveals it from there."""
    bound, process = run.scene.bound, masked(run.scene.process)
    free = run.x == process.mask
    reveal, times = torch.tensor(process.reveal_probabilities), torch.tensor(process.times[:-1])
    share = torch.cat([torch.ones(1), torch.cumprod(1.0 - reveal, 0)[:-1]])

    def loss_of(rows: Tensor) -> Tensor:
        step, particle = rows % process.steps, rows // process.steps
        x0 = samples[particle]
        hidden = torch.rand(x0.shape, generator=generator) < share[step, None]
        # A masked position that is padding has no token to learn.
        hidden &= free[particle] & (x0 != process.mask)
        log_p = log_probs(student(torch.where(hidden, process.mask, x0), times[step]), bound, process)
        token = x0.clamp(max=process.vocab - 1)[..., None]
        each = torch.where(hidden, log_p.gather(2, token)[..., 0], 0.0).sum(1)
        return -(weights[particle] * reveal[step] * each).mean() * process.steps

    return loss_of


def per_step(student: nn.Module, run: Run, weights: Tensor) -> Callable[[Tensor], Tensor]:
    """The loss of the children ``[T, R, M, L]`` that parents were seen to have, ``weights`` ``[T, R, M]``."""
    bound, process = run.scene.bound, masked(run.scene.process)
    assert run.history is not None
    assert run.offspring is not None
    parents, children = torch.stack(run.history[:-1]), torch.stack(run.offspring)
    children = children.view(*parents.shape[:2], -1, parents.shape[2])
    times = torch.tensor(process.times[:-1])

    def loss_of(rows: Tensor) -> Tensor:
        step, particle = rows % process.steps, rows // process.steps
        x, drawn = parents[step, particle], children[step, particle]
        revealed = (x == process.mask)[:, None] & (drawn != process.mask)
        log_p = log_probs(student(x, times[step]), bound, process)
        token = drawn.clamp(max=process.vocab - 1).transpose(1, 2)
        each = torch.where(revealed, log_p.gather(2, token).transpose(1, 2), 0.0).sum(2)
        return -(weights[step, particle] * each).sum(1).mean() * process.steps

    return loss_of


def masked(process: Any) -> MaskedProcess:
    """Return a process whose steps a student can learn; refuse others."""
    if not isinstance(process, MaskedProcess):
        raise TypeError(f"process: a student learns steps of MaskedProcess, got {type(process).__name__}")
    return process


def log_probs(logits: Tensor, bound: Any, process: MaskedProcess) -> Tensor:
    """Return ``[n, L, V]`` log-probabilities of the student's draws, at the bias and temperature of the run."""
    return torch.log_softmax(scale_logits(logits, bound.bias, 1.0 / process.temperature), dim=-1)
