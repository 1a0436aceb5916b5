"""Batches of rollouts until all are done, or budget or memory is short."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastguide.progress import Status, make_progress
from fastguide.timer import Timer
from fastguide.trace import Trace, TraceStep

if TYPE_CHECKING:
    from fastguide.guidance.tree.search import Search
    from fastguide.run import Run


def grow(search: Search) -> Trace:
    """Grow the trees; return a row a batch."""
    run, settings, timer, trace = search.run, search.settings, Timer(), Trace()
    began, display, memory = time.perf_counter(), make_progress(run.progress), run.memory.bytes
    try:
        while search.done < settings.rollouts:
            size = _affordable(run, search, min(settings.batch, settings.rollouts - search.done), memory)
            if size == 0:
                break
            before = _spent(search)
            leaves = search.descend(size, timer)
            cost = [now - was for now, was in zip(_spent(search), before, strict=True)]
            trace.append(_row(run, search, leaves, cost, timer))
            elapsed = time.perf_counter() - began
            left = elapsed * (settings.rollouts / search.done - 1)
            best, n = float(search.highest.max()), run.steering.particles
            display(Status(search.done, settings.rollouts, float(n), n, best, elapsed, left))
            if run.callback is not None:
                run.callback(trace[-1])
    finally:
        display.close()
    return trace


def _spent(search: Search) -> tuple[int, int, int]:
    return search.nodes, search.run.predictor.computed, search.run.scene.problems.reward_rows


def _affordable(run: Run, search: Search, size: int, memory: int) -> int:
    """Return how many rollouts, at most ``size``, the budget and the memory hold; the first batch fits any memory."""
    while size > 0:
        rows = size * search.groups
        fits = search.done == 0 or search.nbytes(rows) <= memory
        if fits and run.affords(rows * search.steps, rows):
            return size
        size //= 2
    return 0


def _row(run: Run, search: Search, leaves: Tensor, cost: list[int], timer: Timer) -> TraceStep:
    """Return the row of the trace of a batch, which cost so many nodes, rows of the denoiser and rows of the reward."""
    seconds, n = timer.lap(), run.steering.particles
    if run.spending is not None:
        run.spending.seconds_denoiser += seconds.get("denoiser", 0.0)
        run.spending.seconds_reward += seconds.get("reward", 0.0)
    values = search.levels[-1].value[leaves].view(search.groups, -1)
    finite = values > -torch.inf
    found = torch.bincount(search.levels[-1].group[: search.levels[-1].size], minlength=search.groups).clamp(max=n)
    return TraceStep(
        step=search.done,
        time=0.0,
        alpha=float(run.steering.guidance.alpha),
        ess=torch.full_like(search.highest, n),
        resampled=torch.zeros_like(found, dtype=torch.bool),
        unique_parents=found,
        unique_ancestors=found,
        values_mean=torch.where(finite, values, 0.0).sum(1) / finite.sum(1),
        values_max=search.highest.clone(),
        distinct=cost[0],
        denoiser_rows=cost[1],
        recomputed_rows=0,
        reward_rows=cost[2],
        seconds=sum(seconds.values()),
        seconds_denoiser=seconds.get("denoiser", 0.0),
        seconds_reward=seconds.get("reward", 0.0),
    )
