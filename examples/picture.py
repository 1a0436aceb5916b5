"""The picture that the examples share: distributions of the reward, and samples written beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure


def draw(
    path: str | Path,
    rewards: Mapping[str, Sequence[float]],
    samples: Mapping[str, Sequence[str]],
    xlabel: str,
    title: str,
) -> Path:
    """Draw a histogram a name on a common axis, and below them the samples of each; return the path."""
    lines = sum(len(texts) + 1.6 for texts in samples.values())
    figure = Figure(figsize=(8.5, 1.3 * len(rewards) + 0.9 + 0.21 * lines), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1.3 * len(rewards) + 0.9, 0.21 * lines])
    axes = top.subplots(len(rewards), 1, sharex=True, squeeze=False)[:, 0]
    low, high = (f(f(values) for values in rewards.values()) for f in (min, max))
    for number, (axis, (name, values)) in enumerate(zip(axes, rewards.items(), strict=True)):
        axis.hist(values, bins=30, range=(low, high), color=f"C{number}", weights=[1 / len(values)] * len(values))
        mean = sum(values) / len(values)
        axis.axvline(mean, color="0.2", linewidth=1)
        axis.set_title(f"{name}: mean {mean:.2f}", loc="left", fontsize=10)
        axis.set_ylabel("share", fontsize=9)
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel(xlabel)
    top.suptitle(title, fontsize=12)
    y = 1.0
    for number, (name, texts) in enumerate(samples.items()):
        bottom.text(0.02, y, name, color=f"C{number}", va="top", fontsize=9, weight="bold")
        for text in texts:
            y -= 1.0 / lines
            bottom.text(0.02, y, text, va="top", fontsize=7.5, family="monospace")
        y -= 1.6 / lines
    figure.savefig(path, dpi=130)
    return Path(path)
