"""The figures of a report, each a function from plain data to inline SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fastguide.report.data import Floats, Positions, RunData, Score
from fastguide.report.diversity import shares
from fastguide.report.logo import logo_block
from fastguide.report.svg import Panel, drawing, element, number, padded

MOST_GROUPS = 8
"""Groups drawn as lines of their own; beyond them only the mean and the range are drawn."""
MOST_LINEAGES = 48
"""Final samples whose lineages are drawn; of more, a seeded subset is."""
MOST_POINTS = 400
"""Points of a scatter."""


def _per_step(panel: Panel, values: Floats, cls: str) -> None:
    """Draw ``[T, G]``: the mean over groups, and the groups as faint lines or a band."""
    steps = list(range(1, len(values) + 1))
    finite = np.where(np.isfinite(values), values, np.nan)
    count = values.shape[1]
    if 1 < count <= MOST_GROUPS:
        for g in range(count):
            panel.line(steps, finite[:, g].tolist(), f"{cls} faint")
    elif count > MOST_GROUPS:
        low, high = np.nanmin(finite, axis=1), np.nanmax(finite, axis=1)
        panel.band(steps, low.tolist(), high.tolist(), f"{cls} faint")
    known = np.isfinite(finite)
    mean = np.where(known, finite, 0.0).sum(axis=1) / np.where(known.any(axis=1), known.sum(axis=1), np.nan)
    panel.line(steps, mean.tolist(), cls)
    if len(steps) == 1:
        panel.points(steps, mean.tolist(), cls)


def ess_chart(run: RunData) -> str:
    """Effective sample size over steps, with ticks where groups resampled and the threshold below which they do."""
    panel = Panel(
        x=(1, max(run.steps, 2)),
        y=(0, run.particles),
        x_label="step",
        y_label=f"ESS (of {run.particles:,})",
        whole=True,
    )
    if run.ess_threshold:
        panel.horizontal(run.ess_threshold * run.particles, "muted", "resamples below")
    _per_step(panel, run.ess, "guided")
    if not run.per_particle:
        share = run.resampled.mean(axis=1)
        for step in np.flatnonzero(share > 0):
            at = panel.px(float(step) + 1)
            tall = 4 + 8 * float(share[step])
            panel.add(element("path", d=f"M{number(at)} {number(panel.bottom)}v{number(-tall)}", cls="mark native"))
    return panel.svg(f"effective sample size over {run.steps} steps")


def ancestors_chart(run: RunData) -> str:
    """How many particles of the first step still have a descendant."""
    panel = Panel(
        x=(1, max(run.steps, 2)),
        y=(0, run.particles),
        x_label="step",
        y_label=f"ancestors (of {run.particles:,})",
        whole=True,
    )
    _per_step(panel, run.unique_ancestors.astype(np.float64), "guided")
    return panel.svg("particles of the first step that still have a descendant")


def values_chart(run: RunData, name: str) -> str:
    """Mean and largest value of the selected particles over steps."""
    both = np.concatenate([run.values_mean.ravel(), run.values_max.ravel()])
    panel = Panel(x=(1, max(run.steps, 2)), y=padded(both.tolist()), x_label="step", y_label=name, whole=True)
    _per_step(panel, run.values_max, "native")
    _per_step(panel, run.values_mean, "guided")
    return panel.svg(f"mean and largest predicted {name} over steps")


def rows_chart(run: RunData) -> str:
    """Rows that the networks saw at each step, against the children proposed."""
    children = run.particles * run.groups * run.branch
    tallest = max(children, int(run.denoiser_rows.max()), int(run.reward_rows.max()))
    panel = Panel(x=(1, max(run.steps, 2)), y=(0, tallest * 1.06), x_label="step", y_label="rows", whole=True)
    panel.horizontal(float(children), "muted", "children")
    steps = list(range(1, run.steps + 1))
    panel.line(steps, run.reward_rows.tolist(), "native")
    panel.line(steps, run.denoiser_rows.tolist(), "guided")
    return panel.svg("denoiser and reward rows of each step")


def cost_chart(run: RunData) -> str:
    """Seconds of each step, by what they went into."""
    parts = [run.seconds_denoiser, run.seconds_reward, run.seconds_other]
    total = np.sum(parts, axis=0) * 1e3
    panel = Panel(
        x=(0.5, run.steps + 0.5),
        y=(0, float(total.max()) * 1.06 or 1.0),
        x_label="step",
        y_label="time (ms)",
        whole=True,
    )
    top = total
    for part, cls in zip(reversed(parts), ("faint muted", "native", "guided"), strict=True):
        for step in range(run.steps):
            panel.bar(step + 0.5, step + 1.5, float(top[step]), cls, f"step {step + 1}: {total[step]:.0f} ms in all")
        top = top - part * 1e3
    return panel.svg("time of each step, split into denoiser, reward and the rest")


def bin_edges(values: Sequence[float]) -> Floats:
    """Return edges of equal bins over all finite values, a round number wide; more values get narrower bins."""
    finite = np.array([v for v in values if math.isfinite(v)])
    most = min(24, max(8, round(3 * len(finite) ** (1 / 3))))
    if not len(finite) or finite.max() - finite.min() < 1e-9:
        centre = float(finite[0]) if len(finite) else 0.0
        return np.array([centre - 0.5, centre + 0.5])
    low, high = float(finite.min()), float(finite.max())
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.floor(high / step + 1e-9) + 1
    return np.arange(first, last + 1) * step


def histogram_chart(score: Score) -> str:
    """Distribution of a score over guided and unguided samples, on the same axes, with the native as a rule."""
    everything = [*score.guided, *([] if score.unguided is None else score.unguided)]
    inside = list(everything) if score.native is None else [*everything, score.native]
    edges = bin_edges(everything)
    sets: list[tuple[str, Floats, Floats | None]] = []
    if score.unguided is not None:
        sets.append(("unguided", score.unguided, None))
    sets.append(("guided", score.guided, score.weights))
    heights = []
    for _, values, weights in sets:
        keep = np.isfinite(values)
        w = np.ones(len(values)) if weights is None else weights
        counts, _ = np.histogram(values[keep], edges, weights=w[keep])
        heights.append(100 * counts / max(float(w[keep].sum()), 1e-300))
    low, high = padded([*edges.tolist(), *(v for v in inside if math.isfinite(v))], 0.02)
    tallest = max((float(h.max()) for h in heights), default=1.0)
    panel = Panel(x=(low, high), y=(0, tallest * 1.12 or 1.0), x_label=score.label, y_label="share of samples (%)")
    for (cls, _, _), shown in zip(sets, heights, strict=True):
        for i, y in enumerate(shown):
            tip = f"{cls}: {y:.1f} % between {edges[i]:.4g} and {edges[i + 1]:.4g}"
            panel.bar(float(edges[i]), float(edges[i + 1]), float(y), f"{cls} translucent", tip, inset=0.0)
        panel.steps(edges.tolist(), shown.tolist(), f"{cls} outline")
    if score.native is not None:
        panel.vertical(score.native, "native", "native")
    return panel.svg(f"distribution of {score.name} over guided and unguided samples")


def scatter_chart(reward: Score, other: Score) -> str:
    """A held-out score against the reward, guided and unguided."""
    every_x, every_y = list(reward.guided), list(other.guided)
    if reward.unguided is not None and other.unguided is not None:
        every_x += list(reward.unguided)
        every_y += list(other.unguided)
    if reward.native is not None and other.native is not None:
        every_x.append(reward.native)
        every_y.append(other.native)
    panel = Panel(x=padded(every_x), y=padded(every_y), x_label=reward.label, y_label=other.label)
    if reward.unguided is not None and other.unguided is not None:
        panel.points(reward.unguided[:MOST_POINTS].tolist(), other.unguided[:MOST_POINTS].tolist(), "unguided")
    alive = np.arange(len(reward.guided)) if reward.weights is None else np.flatnonzero(reward.weights > 0)
    alive = alive[:MOST_POINTS]
    panel.points(reward.guided[alive].tolist(), other.guided[alive].tolist(), "guided")
    if reward.native is not None and other.native is not None:
        panel.points([reward.native], [other.native], "native", radius=4.5, tips=["native"])
    return panel.svg(f"{other.name} against {reward.name}")


def shown_lineages(particles: int, seed: int = 0) -> list[int]:
    """Return the final slots whose lineages are drawn: all, or a seeded sample of them, sorted."""
    if particles <= MOST_LINEAGES:
        return list(range(particles))
    return sorted(np.random.default_rng(seed).choice(particles, MOST_LINEAGES, replace=False).tolist())


def genealogy_chart(run: RunData, *, width: int, height: int = 260, seed: int = 0) -> str:
    """Slots over steps: each final sample's lineage, as thick as the number of samples that share it."""
    total, n = run.steps, run.particles
    panel = Panel(
        x=(0, total),
        y=(-0.5, n - 0.5),
        x_label="step",
        y_label="slot",
        width=width,
        height=height,
        whole=True,
        y_ticks=[],
    )
    panel.left = 14.0
    final = shown_lineages(n, seed)
    if n <= MOST_LINEAGES:
        dead: list[str] = []
        for step in range(total):
            lost = set(range(n)) - set(run.parents[step].tolist())
            for slot in lost:
                before = int(run.parents[step - 1, slot]) if step else slot
                dead.append(_curve(panel, max(step - 1, 0), before, step, slot))
                end = element("circle", cx=panel.px(step), cy=panel.py(slot), r=1.6, cls="dot unguided")
                panel.add(end)
        panel.add(element("path", d="".join(dead), cls="line thin unguided faint") if dead else "")
    slots = np.array(final)
    buckets: dict[int, list[str]] = {}
    for step in range(total - 1, -1, -1):
        parents = run.parents[step, slots]
        edges, counts = np.unique(np.stack([parents, slots]), axis=1, return_counts=True)
        for (parent, child), count in zip(edges.T.tolist(), counts.tolist(), strict=True):
            thick = round(1 + 5 * math.sqrt((count - 1) / max(1, len(final) - 1)))
            buckets.setdefault(thick, []).append(_curve(panel, step, parent, step + 1, child))
        slots = parents
    for thick, paths in sorted(buckets.items(), reverse=True):
        panel.add(element("path", d="".join(paths), cls=f"line guided w{thick}"))
    roots = sorted(set(slots.tolist()))
    panel.points([0.0] * len(roots), [float(r) for r in roots], "guided", radius=2.6)
    return panel.svg(
        f"lineages of {len(final)} final samples over {total} steps, from {len(roots)} particles of the start"
    )


def _curve(panel: Panel, x0: float, y0: float, x1: float, y1: float) -> str:
    a, b, c, d = panel.px(x0), panel.py(y0), panel.px(x1), panel.py(y1)
    if y0 == y1:
        return f"M{number(a)} {number(b)}H{number(c)}"
    middle = number((a + c) / 2)
    return f"M{number(a)} {number(b)}C{middle} {number(b)} {middle} {number(d)} {number(c)} {number(d)}"


def composition_chart(
    letters: str, guided: Floats, unguided: Floats | None, native: Floats | None, *, width: int
) -> str:
    """Share of each amino acid in guided and unguided samples and in the native."""
    sets = [("unguided", unguided), ("guided", guided), ("native", native)]
    shown = [(cls, 100 * values) for cls, values in sets if values is not None]
    order = np.argsort(-guided, kind="stable")
    tallest = max(float(values.max()) for _, values in shown)
    panel = Panel(
        x=(0, len(letters)), y=(0, tallest * 1.08 or 1.0), x_label="amino acid", y_label="share of residues (%)",
        width=width, height=220, x_ticks=[],
    )  # fmt: skip
    for column, a in enumerate(order.tolist()):
        each = 0.8 / len(shown)
        for i, (cls, values) in enumerate(shown):
            left = column + 0.1 + i * each
            tip = f"{letters[a]}, {cls}: {values[a]:.1f} %"
            panel.bar(left, left + each, float(values[a]), f"{cls} solid", tip, inset=0.3)
        panel.text(panel.px(column + 0.5), panel.bottom + 14, letters[a], "letter", anchor="middle")
    return panel.svg("amino-acid composition of guided and unguided samples and the native")


def logo(positions: Positions, letters: str, tokens: object, weights: object) -> str:
    """The logo of weighted samples, in blocks of ten positions that wrap."""
    found = shares(tokens, weights)  # type: ignore[arg-type]
    blocks, last = [], None
    for block in positions.blocks:
        chain = positions.chains[block.start]
        cls = "logo-cell first" if last is not None and chain != last else "logo-cell"
        last = chain
        picture = logo_block(
            letters,
            found[block.start : block.stop],
            positions.labels[block.start : block.stop],
            positions.native[block.start : block.stop],
            positions.kept[block.start : block.stop],
        )
        blocks.append(f'<div class="{cls}">{picture}</div>')
    return f'<div class="logo">{"".join(blocks)}</div>'


def swatch(cls: str) -> str:
    """Return the small square of a legend."""
    return drawing(element("rect", x=1, y=1, width=10, height=10, rx=2, cls=f"area {cls} solid"), 12, 12, cls, "swatch")
