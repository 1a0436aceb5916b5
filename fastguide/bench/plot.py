"""Log-log plots of time against N, one line a competitor, named at its end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fastguide.bench.case import OURS
from fastguide.bench.peers import particles
from fastguide.errors import BackendUnavailable


class Line(NamedTuple):
    """One competitor of a panel.

    Attributes:
        label: at the end of its line. color: of both.
        job: the job of the rows.
        names: the competitors of which the best counts at each N.
    """

    label: str
    color: str
    job: str
    names: tuple[str, ...]


class Panel(NamedTuple):
    """One pair of axes."""

    title: str
    lines: tuple[Line, ...]


INK, RED, BLUE, GREEN, BROWN, PURPLE, GREY = "#1a1a1a", "#c8102e", "#1f5fa8", "#2e7d4f", "#8a5a1c", "#6b4ba1", "#7a7a7a"

PANELS = {
    "select": Panel(
        "Systematic resampling: log-weights to ancestors",
        (
            Line("fastguide", RED, "systematic", (OURS, f"{OURS}, out=")),
            Line("particles", BLUE, "systematic", particles.NAMES),
            Line(
                "torch",
                GREEN,
                "systematic",
                ("torch (searchsorted)", "torch (searchsorted, out=)", "torch (repeat_interleave, out=)"),
            ),
            Line("torch.multinomial", BROWN, "multinomial", ("torch.multinomial",)),
            Line("numpy", PURPLE, "systematic", ("numpy",)),
            Line("numba, own loop", INK, "systematic", ("numba (fused, parallel)",)),
            Line("blackjax (JAX)", GREY, "systematic", ("blackjax (JAX, jit)",)),
        ),
    ),
    "guided_step": Panel(
        "Whole guided step: L = 32, V = 20, small denoiser",
        (
            Line("fastguide", RED, "peptide", (OURS,)),
            Line("torch, eager", GREEN, "peptide", ("torch (eager)",)),
            Line("tutorial's manner", BLUE, "peptide", ("tutorial's manner",)),
        ),
    ),
}


def draw(panels: Sequence[str], rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Draw panels, named in `PANELS`, of benchmark rows into a PNG or SVG file.

    Raises:
        BackendUnavailable: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise BackendUnavailable('plots need matplotlib; get it with: pip install "fastguide[bench]"') from None
    rows = list(rows)
    figure = Figure(figsize=(5.6 * len(panels), 4.2), dpi=160, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for name, axes in zip(panels, figure.subplots(1, len(panels), squeeze=False)[0], strict=True):
        _panel(axes, PANELS[name], [row for row in rows if row["op"] == name])
    figure.savefig(path)


def _panel(axes: Any, panel: Panel, rows: Sequence[Mapping[str, Any]]) -> None:
    ends = []
    for line in panel.lines:
        best: dict[int, float] = {}
        for row in rows:
            if row["job"] == line.job and row["competitor"] in line.names:
                best[row["n"]] = min(row["seconds"], best.get(row["n"], row["seconds"]))
        if not best:
            continue
        n = sorted(best)
        ours = line.names[0] == OURS
        axes.plot(
            n,
            [best[i] for i in n],
            color=line.color,
            linewidth=2.4 if ours else 1.4,
            marker="o",
            markersize=4 if ours else 3,
        )
        ends.append((n[-1], best[n[-1]], line))
    axes.set_xscale("log", base=10)
    axes.set_yscale("log")
    axes.set_title(panel.title, loc="left", fontsize=10.5, color=INK)
    axes.set_xlabel("particles N", fontsize=9.5, color=INK)
    axes.set_ylabel("seconds a call", fontsize=9.5, color=INK)
    axes.tick_params(which="major", labelsize=9, colors=INK)
    axes.minorticks_off()
    axes.grid(True, which="major", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    _label(axes, ends)


def _label(axes: Any, ends: Sequence[tuple[int, float, Line]]) -> None:
    """Name the lines to the right of the axes, moved apart where they would overlap."""
    if not ends:
        return
    low, high = axes.get_ylim()
    gap = 0.052 * math.log(high / low)
    ends = sorted(ends, key=lambda end: end[1])
    # Labels that would overlap form a block, which stands around the mean of its lines' ends.
    blocks: list[list[float]] = []
    for _, seconds, _ in ends:
        blocks.append([math.log(seconds)])
        while len(blocks) > 1 and _foot(blocks[-1], gap) < _foot(blocks[-2], gap) + gap * len(blocks[-2]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    heights = [_foot(block, gap) + gap * i for block in blocks for i in range(len(block))]
    last = max(n for n, _, _ in ends)
    for (n, seconds, line), height in zip(ends, heights, strict=True):
        axes.annotate(
            line.label,
            (n, seconds),
            xytext=(last * 1.35, math.exp(height)),
            textcoords="data",
            va="center",
            fontsize=9.5,
            color=line.color,
            fontweight="bold" if line.names[0] == OURS else "normal",
            annotation_clip=False,
        )


def _foot(block: Sequence[float], gap: float) -> float:
    return sum(block) / len(block) - gap * (len(block) - 1) / 2
