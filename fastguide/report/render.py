"""Puts the sections of a report together."""

from __future__ import annotations

from fastguide.report.data import ReportData
from fastguide.report.logo import glyphs
from fastguide.report.page import notices, page
from fastguide.report.protein import protein_sections
from fastguide.report.sections import (
    column_decimals,
    entries_section,
    plain_entry,
    process_section,
    score_section,
    settings_section,
    summary,
)
from fastguide.report.values import value_section

CALM = (
    "No alarm: no held-out score fell while the reward rose, lineages did not collapse, and no design is of low "
    "complexity."
)
CALM_GENERIC = "No alarm: lineages did not collapse, and samples are distinct."


def render(data: ReportData, *, columns: dict[str, str] | None = None) -> str:
    """Return the HTML document.

    Args:
        data: what to draw; its first score is the optimised reward.
        columns: the columns of the table of best samples, from the names in `Entry.values` to headings.
    """
    names = {key: key for entry in data.entries[:1] for key in entry.values} if columns is None else columns
    parts = [summary(data), notices(data.warnings, CALM if data.protein is not None else CALM_GENERIC, data.notes)]
    if data.protein is not None:
        parts.insert(0, glyphs())
        parts += [score_section(data), protein_sections(data.protein, names)]
    else:
        if len(data.scores) > 1:
            parts.append(score_section(data))
        if data.entries:
            decimals = column_decimals(data.entries, names)
            rows = [plain_entry(entry, decimals) for entry in data.entries]
            parts.append(entries_section("Best samples", "Distinct samples, best first.", names, rows))
    parts.append(process_section(data))
    if data.values is not None:
        parts.append(value_section(data.values, data.scores[0].name))
    parts.append(settings_section(data))
    footer = f"{data.run.guidance} · {data.run.groups} × {data.run.particles} particles · {data.run.steps} steps"
    return page(data.title, data.subtitle, "".join(parts), footer)
