"""Reports: one self-contained HTML file a run, without scripts and without anything to load.

`render` draws plain data (`ReportData`); `result_report` makes that data from any `fastguide.Result`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fastguide.report import alarms
from fastguide.report.data import Entry, Positions, ProteinData, ReportData, RunData, Score, estimate
from fastguide.report.files import write_text
from fastguide.report.generic import result_data
from fastguide.report.render import render

if TYPE_CHECKING:
    from fastguide.calibration import Calibration
    from fastguide.result import Result

__all__ = [
    "Entry",
    "Positions",
    "ProteinData",
    "ReportData",
    "RunData",
    "Score",
    "alarms",
    "estimate",
    "render",
    "result_data",
    "result_report",
    "write_text",
]


def result_report(
    result: Result,
    path: str | Path,
    *,
    unguided: Result | None = None,
    calibration: Calibration | None = None,
    title: str = "Guided run",
    reward: str = "reward",
) -> Path:
    """Write the report of a run.

    Args:
        result: of `fastguide.sample`.
        path: of the HTML file; it is replaced if it exists.
        unguided: the same process without guidance, drawn beside it.
        calibration: of the values, drawn in a section of its own.
        title: heading.
        reward: name of the reward.

    Returns:
        The path written.
    """
    return write_text(
        path, render(result_data(result, unguided=unguided, calibration=calibration, title=title, reward=reward))
    )
