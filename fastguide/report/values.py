"""The section on how good the values were, from a `fastguide.Calibration` made beside the run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fastguide.report.numbers import show
from fastguide.report.page import figure, section
from fastguide.report.svg import Panel, padded

if TYPE_CHECKING:
    from fastguide.calibration import Calibration
    from fastguide.report.data import Floats

MOMENTS = (("early", "unguided"), ("midway", "native"), ("late", "guided"))
"""Name and colour of the steps whose curves are drawn."""


@dataclass(frozen=True)
class ValueData:
    """Values against the rewards that unguided trajectories came to.

    Attributes:
        correlation: ``[T − 1]`` after steps 1 to T − 1. bias: likewise, in units of the reward.
        curves: of up to three steps, early to late: the step, and means of values and of rewards by tenths of the states.
        trajectories: how many were drawn.
    """

    correlation: Floats
    bias: Floats
    curves: tuple[tuple[int, Floats, Floats], ...]
    trajectories: int

    @classmethod
    def from_calibration(cls, found: Calibration) -> ValueData:
        """Read a `fastguide.Calibration`."""
        curves = []
        for step in found.shown:
            estimated, realised = found.deciles(step)
            curves.append((step, estimated.numpy(), realised.numpy()))
        return cls(
            correlation=np.array([s.correlation for s in found.steps]),
            bias=np.array([s.bias for s in found.steps]),
            curves=tuple(curves),
            trajectories=len(found.rewards),
        )


def value_section(data: ValueData, reward: str) -> str:
    """Return two figures: from which step on values tell states apart, and whether they promise what comes."""
    lead = (
        f"Values on the way against the {reward} at the end, over {data.trajectories:,} trajectories of the pretrained model. "
        "Samples with weights are exact with any value; a good one makes them more even."
    )
    key = [
        (cls, f"{name}, after step {step}")
        for (step, _, _), (name, cls) in zip(data.curves, moments(data), strict=True)
    ]
    figures = [_correlation(data), _promise(data, reward, key), _bias(data, reward)]
    return section("How good the values were", f'<div class="figures">{"".join(figures)}</div>', lead)


def moments(data: ValueData) -> tuple[tuple[str, str], ...]:
    """Return names and colours of the curves, the last of `MOMENTS` where there are fewer than three."""
    return MOMENTS[len(MOMENTS) - len(data.curves) :]


def _correlation(data: ValueData) -> str:
    steps = list(range(1, len(data.correlation) + 1))
    low = min(0.0, *(c for c in data.correlation.tolist() if math.isfinite(c)), 0.0)
    panel = Panel(x=(1, max(len(steps), 2)), y=(low, 1.0), x_label="step", y_label="correlation", whole=True)
    panel.line(steps, data.correlation.tolist(), "guided")
    if len(steps) == 1:
        panel.points(steps, data.correlation.tolist(), "guided")
    enough = np.flatnonzero(data.correlation >= 0.5)
    text = f"It passes one half after step {steps[int(enough[0])]}." if len(enough) else "It stays below one half."
    caption = f"Of values and final rewards: near 0, guidance cannot tell states apart yet. {text}"
    return figure("What values know", panel.svg("correlation of values and final rewards over steps"), caption)


def _promise(data: ValueData, reward: str, key: list[tuple[str, str]]) -> str:
    every = [v for _, estimated, realised in data.curves for v in (*estimated.tolist(), *realised.tolist())]
    low, high = padded(every)
    panel = Panel(x=(low, high), y=(low, high), x_label=f"value ({reward})", y_label=f"{reward} it came to")
    panel.line([low, high], [low, high], "thin unguided faint")
    for (_, estimated, realised), (_, cls) in zip(data.curves, moments(data), strict=True):
        panel.line(estimated.tolist(), realised.tolist(), cls)
        panel.points(estimated.tolist(), realised.tolist(), cls, radius=2.2)
    caption = (
        "Soft means over tenths of the states, sorted by value. Below the diagonal a value promises too much, above too "
        "little."
    )
    return figure("What values promise", panel.svg(f"realised {reward} against values"), caption, key=key)


def _bias(data: ValueData, reward: str) -> str:
    steps = list(range(1, len(data.bias) + 1))
    panel = Panel(
        x=(1, max(len(steps), 2)),
        y=padded([0.0, *data.bias.tolist()]),
        x_label="step",
        y_label=f"bias ({reward})",
        whole=True,
    )
    panel.horizontal(0.0, "muted")
    panel.line(steps, data.bias.tolist(), "guided")
    if len(steps) == 1:
        panel.points(steps, data.bias.tolist(), "guided")
    worst = max(data.bias.tolist(), key=abs)
    caption = f"Soft mean of the values less that of the rewards: 0 for the exact value, {show(worst)} at its worst."
    return figure("Bias of values", panel.svg(f"bias of values over steps, in units of {reward}"), caption)
