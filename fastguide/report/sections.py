"""The sections of any run: summary, scores, how the run went, who descends from whom, settings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np

from fastguide.report import charts
from fastguide.report.data import Entry, Estimate, Floats, ReportData, RunData, Score
from fastguide.report.numbers import decimals_of, fixed, show, show_estimate
from fastguide.report.page import card, cards, figure, pairs, section, table

GUIDED, UNGUIDED, NATIVE = ("guided", "guided"), ("unguided", "unguided"), ("native", "native")
ROLES = {
    "reward": "optimised",
    "part": "part of the reward",
    "held-out": "held out",
    "model": "generating model",
    "information": "for information",
}


def summary(data: ReportData) -> str:
    """Return the cards."""
    run, reward = data.run, data.scores[0]
    items = [_score_card(reward, main=True)]
    items.append(card(f"Best {reward.name}", show(_best(reward, reward.guided, reward.weights)), _best_note(reward)))
    items += [_score_card(score) for score in data.scores[1:] if score.role == "held-out"]
    if data.protein is not None:
        designs, length = data.protein, len(data.protein.positions.labels)
        free = sum(not kept for kept in designs.positions.kept)
        items.append(card("Designs", f"{len(designs.entries)}", "all distinct, best first below"))
        if not math.isnan(designs.median_distance):
            note = f"median between two designs, of {free} designed residues"
            if free == length and not math.isnan(designs.unguided_distance):
                note = f"median between two designs; unguided samples: {show(designs.unguided_distance)}"
            items.append(card("Hamming distance", show(designs.median_distance), note, small=f"of {free}"))
    else:
        alive = int((run.weights > 0).sum())
        items.append(card("Distinct samples", f"{run.distinct:,}", small=f"of {alive:,}"))
    note = "of the weighted samples" if run.ess_samples < 0.999 * len(run.weights) else "samples are equally weighted"
    items.append(card("Effective samples", show(run.ess_samples), note, small=f"of {len(run.weights):,}"))
    if not run.log_normalizer.startswith("nan"):
        value, _, error = run.log_normalizer.partition(" ± ")
        items.append(card("Log normaliser", value, "log E[exp(reward / alpha)]", small=f"± {error}" if error else ""))
    asked = run.steps * run.particles * run.groups * run.branch
    items.append(card("Denoiser rows", f"{int(run.denoiser_rows.sum()):,}", f"distinct states, of {asked:,} children"))
    items.append(card("Reward rows", f"{int(run.reward_rows.sum()):,}", "distinct samples evaluated"))
    other = "" if data.unguided is None else f"unguided run: {show(data.unguided.seconds)} s"
    items.append(card("Time", show(run.seconds), other, small="s"))
    return cards(items)


def _best(score: Score, values: Floats, weights: Floats | None = None) -> float:
    """Return the best finite value of nonzero weight."""
    alive = values[np.isfinite(values) if weights is None else np.isfinite(values) & (weights > 0)]
    if not len(alive):
        return math.nan
    return float(alive.min() if score.better == "lower" else alive.max())


def _best_note(score: Score) -> str:
    return "" if score.unguided is None else f"unguided: {show(_best(score, score.unguided))}"


def _score_card(score: Score, *, main: bool = False) -> str:
    value, error = show_estimate(score.guided_mean)
    parts = []
    if score.unguided is not None:
        parts.append(f"unguided: {' '.join(show_estimate(score.unguided_mean)).strip()}")
    if score.native is not None:
        parts.append(f"native: {show(score.native)}")
    term = f"Mean {score.name}" if main else f"Held out: {score.name}"
    return card(term, value, "; ".join(parts), small=error, main=main)


def score_section(data: ReportData) -> str:
    """Return the table of scores and their distributions."""
    beside = any(score.unguided is not None for score in data.scores)
    lead = (
        "Means over samples with their standard errors. Only the first was optimised; a held-out score was never seen "
        "by the run and tells whether the gain is real."
    )
    parts = [_score_table(data), '<div class="figures" style="margin-top:14px">']
    parts += [_distribution(score) for score in data.scores if score.role != "information"]
    reward = data.scores[0]
    for score in data.scores[1:]:
        if score.role == "held-out":
            caption = (
                "Each dot is a sample. Where dots move right without moving "
                f"{'down' if score.better == 'lower' else 'up'}, the reward rises and {score.name} does not follow."
            )
            chart = charts.scatter_chart(reward, score)
            title = f"{score.name} against {reward.name}"
            parts.append(figure(title, chart, caption, key=_key(score)))
    return section("Scores", "".join(parts) + "</div>", lead if beside else "")


def _distribution(score: Score) -> str:
    return figure(score.name, charts.histogram_chart(score), _distribution_caption(score), key=_key(score))


def _key(score: Score) -> list[tuple[str, str]]:
    key = [UNGUIDED, GUIDED] if score.unguided is not None else [GUIDED]
    return key if score.native is None else [*key, NATIVE]


def _distribution_caption(score: Score) -> str:
    better = {"higher": "higher is better", "lower": "lower is better", None: "shown for information"}[score.better]
    text = f"{ROLES[score.role].capitalize()}; {better}."
    gain = score.gain
    if gain is None or math.isnan(gain.mean):
        return text
    raw = -gain.mean if score.better == "lower" else gain.mean
    moved = " ".join(show_estimate(Estimate(raw, gain.error))).strip()
    return f"{text} Guidance moved the mean by {'+' if raw > 0 else ''}{moved}."


def _score_table(data: ReportData) -> str:
    native = any(score.native is not None for score in data.scores)
    beside = any(score.unguided is not None for score in data.scores)
    head = ["Score", *(["unguided"] if beside else []), "guided", *(["change"] if beside else [])]
    head += ["native"] if native else []
    rows = []
    for score in data.scores:
        arrow = {"higher": "↑ better", "lower": "↓ better", None: ""}[score.better]
        unit = f" {escape(score.unit)}" if score.unit else ""
        cells = [f"{escape(score.name)}<br><small>{ROLES[score.role]}{unit and ','}{unit} {arrow}</small>"]
        if beside:
            cells.append(_mean(score.unguided_mean))
        cells.append(_mean(score.guided_mean))
        if beside:
            cells.append(_change(score))
        if native:
            cells.append(show(score.native))
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return table(head, [f"<tbody>{''.join(rows)}</tbody>"])


def _mean(value: Estimate | None) -> str:
    mean, error = show_estimate(value)
    return f"{mean} <small>{error}</small>" if error else mean


def _change(score: Score) -> str:
    gain = score.gain
    if gain is None or math.isnan(gain.mean):
        return "–"
    raw = -gain.mean if score.better == "lower" else gain.mean
    mean, error = show_estimate(Estimate(raw, gain.error))
    text = ("+" if raw > 0 else "") + mean + (f" <small>{error}</small>" if error else "")
    clear = abs(gain.mean) > 2 * (0.0 if math.isnan(gain.error) else gain.error) and gain.mean != 0
    if score.better is None or not clear:
        return text
    return f'<span class="{"better" if gain.mean > 0 else "worse"}">{text}</span>'


def process_section(data: ReportData) -> str:
    """Return how the run went: ESS, values, ancestors, cost, genealogy; with the reward where it is the only score."""
    run = data.run
    figures = [_ess(run)]
    if run.uses_values:
        figures.append(_values(data))
    figures.append(_ancestors(run))
    if data.protein is None:
        figures = [_distribution(data.scores[0]), *figures, _rows(run)]
    figures.append(_cost(run))
    # Beside a single figure in its row, the genealogy takes the two places left.
    figures.append(_genealogy(run, "double" if len(figures) % 3 == 1 else "full"))
    return section("How the run went", f'<div class="figures">{"".join(figures)}</div>')


def _ess(run: RunData) -> str:
    if run.per_particle:
        caption = (
            "Effective number of children that the selection could choose from, scaled to all particles: near the top, "
            "children are alike in value and selection changes little."
        )
        key = [("guided", "ESS")]
    else:
        times = int(run.resampled.sum())
        caption = (
            f"How many equally weighted samples the weights are worth; orange ticks mark the {times} resampling"
            f"{'s' if times != 1 else ''}, each of which evens them out."
        )
        key = [("guided", "ESS before resampling"), ("native", "resampled")]
    if 1 < run.groups <= charts.MOST_GROUPS:
        caption += f" Thin lines: the {run.groups} groups."
    return figure("Effective sample size", charts.ess_chart(run), caption, key=key)


def _values(data: ReportData) -> str:
    reward = data.scores[0]
    caption = (
        f"The {reward.name} expected of each particle's clean sample, mean and best of the selected ones; it should "
        "rise, then settle."
    )
    key = [("guided", "mean"), ("native", "best")]
    return figure("Predicted value", charts.values_chart(data.run, reward.label), caption, key=key)


def _ancestors(run: RunData) -> str:
    caption = (
        f"Particles of the first step with a descendant alive: {int(run.unique_ancestors[-1].min()):,} at the end. A "
        "fall towards 1 means that the samples are close relatives."
    )
    return figure("Unique ancestors", charts.ancestors_chart(run), caption, key=[("guided", "ancestors")])


def _rows(run: RunData) -> str:
    caption = (
        f"Distinct states that the networks evaluated, {int(run.denoiser_rows.sum()):,} by the denoiser and "
        f"{int(run.reward_rows.sum()):,} by the reward; the distance to the dashed line is work saved."
    )
    key = [("guided", "denoiser"), ("native", "reward")]
    return figure("Rows of each step", charts.rows_chart(run), caption, key=key)


def _cost(run: RunData) -> str:
    caption = (
        f"{show(run.seconds)} s in all: denoiser {show(float(run.seconds_denoiser.sum()))} s, reward "
        f"{show(float(run.seconds_reward.sum()))} s, sampler {show(float(run.seconds_other.sum()))} s."
    )
    key = [("guided", "denoiser"), ("native", "reward"), ("muted", "sampler")]
    return figure("Time of each step", charts.cost_chart(run), caption, key=key)


def _genealogy(run: RunData, cls: str) -> str:
    shown = len(charts.shown_lineages(run.particles))
    which = f"all {shown}" if shown == run.particles else f"{shown} of {run.particles:,}, drawn at random (seed 0)"
    group = " of group 0" if run.groups > 1 else ""
    caption = (
        f"Lineages of the final samples{group} ({which}), from noise on the left to data on the right; a line is as "
        "thick as the samples that share it are many."
    )
    key = [("guided", "lineages of samples")]
    if shown == run.particles and any(len(set(row)) < run.particles for row in run.parents.tolist()):
        caption += " Grey ends: particles without descendants."
        key.append(("unguided", "died out"))
    wide = charts.genealogy_chart(run, width=1080 if cls == "full" else 724, height=260 if cls == "full" else 216)
    narrow = charts.genealogy_chart(run, width=344, height=230)
    content = f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>'
    return figure("Genealogy", content, caption, key=key, cls=cls)


def entries_section(title: str, lead: str, columns: dict[str, str], entries: list[str]) -> str:
    """Return the table of best samples; ``columns`` maps a name to what stands in the heading."""
    return section(title, table(["rank", *(escape(text) for text in columns.values())], entries), lead)


def number_cells(entry: Entry, decimals: dict[str, int]) -> str:
    """Return the cells of a row: its rank (or name, for rank 0) and its numbers."""
    first = str(entry.rank) if entry.rank else escape(entry.name)
    return f"<td>{first}</td>" + "".join(f"<td>{fixed(entry.values.get(k), d)}</td>" for k, d in decimals.items())


def column_decimals(entries: Sequence[Entry], columns: dict[str, str]) -> dict[str, int]:
    """Return the decimals of each column."""
    return {name: decimals_of(entry.values.get(name) for entry in entries) for name in columns}


def plain_entry(entry: Entry, decimals: dict[str, int]) -> str:
    """Return the rows of one sample whose text is shown as it is."""
    return (
        f"<tbody><tr>{number_cells(entry, decimals)}</tr><tr class=sequence><td colspan={len(decimals) + 1}>"
        f'<div class="residues text">{escape(entry.sequence)}</div></td></tr></tbody>'
    )


def settings_section(data: ReportData) -> str:
    """Return settings, manifest and the command to run it again."""
    parts = [section("Settings", pairs(data.settings))] if data.settings else []
    if data.manifest:
        parts.append(section("Manifest", pairs(data.manifest)))
    if data.command:
        lead = "The same seed gives the same designs."
        parts.append(section("Run it again", f"<pre>{escape(data.command)}</pre>", lead))
    return "".join(parts)
