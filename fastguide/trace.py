"""What happened at each step of a run."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor


class TraceStep(NamedTuple):
    """One step.

    Attributes:
        step: its number, from 0.
        time: noise level after it.
        alpha: temperature of the tilt.
        ess: ``[G]`` effective sample size of the weights, before any resampling.
        resampled: ``[G]`` bool.
        unique_parents: ``[G]`` int64, parents of which a child was selected.
        unique_ancestors: ``[G]`` int64, particles of the first step with a descendant alive.
        values_mean: ``[G]`` float64 mean value of the selected particles, the one last read (at the last step: the reward);
            −inf left out.
        values_max: ``[G]`` float64 the largest.
        distinct: distinct states U evaluated.
        denoiser_rows: rows asked of the denoiser.
        recomputed_rows: how many of them for a second time, for want of memory.
        reward_rows: samples evaluated by the reward.
        seconds: wall time; seconds_denoiser and seconds_reward are the networks' shares of it.
    """

    step: int
    time: float
    alpha: float
    ess: Tensor
    resampled: Tensor
    unique_parents: Tensor
    unique_ancestors: Tensor
    values_mean: Tensor
    values_max: Tensor
    distinct: int
    denoiser_rows: int
    recomputed_rows: int
    reward_rows: int
    seconds: float
    seconds_denoiser: float
    seconds_reward: float


class Trace(list[TraceStep]):
    """The steps of a run; a field's name gives it over all steps, ``trace.ess`` for example ``[T, G]``."""

    def __getattr__(self, name: str) -> Any:
        if name not in TraceStep._fields:
            raise AttributeError(f"trace: no field {name!r}; there are {', '.join(TraceStep._fields)}")
        column = [getattr(step, name) for step in self]
        return torch.stack(column) if column and isinstance(column[0], Tensor) else torch.tensor(column, device="cpu")

    def to_dataframe(self) -> Any:
        """Return a ``pandas.DataFrame``, one row a step and group."""
        from fastguide.export import trace_to_dataframe

        return trace_to_dataframe(self)
