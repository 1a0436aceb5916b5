"""The few lines that the command line prints at the end."""

from __future__ import annotations

import math

from fastguide.design.report import DesignReport
from fastguide.report.data import Estimate
from fastguide.report.numbers import show, show_estimate

ROLES = {"reward": "optimised", "part": "part", "held-out": "held out", "model": "model", "information": ""}


def summary(report: DesignReport) -> str:
    """Return the table of means, the counts, the warnings and the paths."""
    head = ["", "", "unguided", "guided", "native"]
    rows = [
        [
            score.name,
            " ".join(filter(None, (ROLES[score.role], {"higher": "↑", "lower": "↓", None: ""}[score.better]))),
            _mean(score.unguided_mean),
            _mean(score.guided_mean),
            show(score.native),
        ]
        for score in report.scores
    ]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ["", *(_line(row, widths) for row in [head, *rows]), ""]
    result, count = report.result, len(report.rows)
    distance = (
        ""
        if math.isnan(report.median_distance)
        else (f", median Hamming distance {show(report.median_distance)} of {len(report.design.free)}")
    )
    lines.append(f"{count} distinct design{'' if count == 1 else 's'}{distance}")
    rows_used = f"{result.denoiser_rows:,} denoiser rows, {result.reward_rows:,} reward rows"
    seconds = report.manifest["seconds"]
    lines.append(
        f"guided {show(seconds['guided'])} s, unguided {show(seconds['unguided'])} s, in all {show(seconds['total'])} "
        f"s; {rows_used}"
    )
    if not math.isnan(float(result.log_normalizer)):
        lines.append(f"log normaliser {result.log_normalizer}")
    lines += [f"warning: {text}" for text in report.warnings]
    lines += [f"note: {text}" for text in report.notes]
    lines.append("wrote " + ", ".join(str(path) for path in report.files.values()))
    return "\n".join(lines)


def _line(cells: list[str], widths: list[int]) -> str:
    texts = [
        cell.ljust(width) if i < 2 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(texts).rstrip()


def _mean(value: Estimate | None) -> str:
    return " ".join(show_estimate(value)).strip().replace("\N{NO-BREAK SPACE}", " ")
