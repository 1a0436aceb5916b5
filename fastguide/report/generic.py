"""From a `fastguide.Result` of any process to the data of its report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from fastguide.report.alarms import run_alarms
from fastguide.report.data import Entry, ReportData, RunData, Score
from fastguide.report.values import ValueData

if TYPE_CHECKING:
    from torch import Tensor

    from fastguide.calibration import Calibration
    from fastguide.result import Result

SHOWN = 10
"""Samples in the table."""


def result_data(
    result: Result,
    *,
    unguided: Result | None = None,
    calibration: Calibration | None = None,
    title: str = "Guided run",
    reward: str = "reward",
) -> ReportData:
    """Return what the report of a run draws: reward, weights, trace and genealogy."""
    run = RunData.from_result(result)
    beside = None if unguided is None else RunData.from_result(unguided)
    score = Score(
        name=reward,
        role="reward",
        better="higher",
        guided=result.rewards.cpu().numpy(),
        weights=run.weights if run.weights.any() else np.ones_like(run.weights),
        ancestors=run.roots,
        unguided=None if unguided is None else unguided.rewards.cpu().numpy(),
    )
    return ReportData(
        title=title,
        subtitle=f"{run.groups} × {run.particles:,} particles, {run.steps} steps, {run.guidance}",
        run=run,
        unguided=beside,
        scores=[score],
        warnings=run_alarms(run),
        entries=_entries(result, reward),
        values=None if calibration is None else ValueData.from_calibration(calibration),
        settings={
            "guidance": run.guidance,
            "particles": run.particles,
            "groups": run.groups,
            "steps": run.steps,
            "seeds of the groups": ", ".join(str(s) for s in result.seeds.tolist()[:8])
            + (" …" if run.groups > 8 else ""),
        },
    )


def _entries(result: Result, reward: str) -> list[Entry]:
    if len(set(result.problems)) > 1:
        return []
    found = []
    for rank, i in enumerate(result.best_indices(SHOWN).tolist(), start=1):
        values = {reward: float(result.rewards[i]), "log-weight": float(result.log_weights[i])}
        found.append(Entry(rank, f"sample {i}", _text(result, result.samples[i]), values))
    return found


def _text(result: Result, tokens: Tensor) -> str:
    decode = result.decode[0]
    seen = tokens[None] if decode is None else decode(tokens[None])
    first = seen[0]
    if isinstance(first, str):
        return first
    ids = first.tolist() if isinstance(first, torch.Tensor) else list(first)
    return " ".join(map(str, ids))
