"""The report of a design: pipeline results as the plain data that `fastguide.report` draws."""

from __future__ import annotations

import math

from fastguide.design.report import DesignReport, Samples
from fastguide.protein.alphabet import decode
from fastguide.report import Entry, Positions, ProteinData, ReportData, RunData, alarms, render
from fastguide.report.diversity import median_distance

ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}
SHOWN = 50
"""Designs in the table of the page; the CSV has all."""


def render_report(
    report: DesignReport, guided: Samples, plain: Samples, native: Samples | None
) -> tuple[str, list[str]]:
    """Return the HTML document and the warnings on it."""
    design = report.design
    run = RunData.from_result(report.result)
    columns = {score.name: f"{score.name}{ARROWS[score.better]}" for score in report.scores if score.role != "model"}
    columns |= {"NLL": "NLL ↓", "confidence": "confidence ↑", "recovery": "recovery", "mutations": "mutations"}
    columns["log-weight"] = "log-weight"
    entries = _entries(report)
    beside = None
    if native is not None:
        values = {score.name: score.native for score in report.scores}
        nll = float(native.values["nll"][0])
        values |= {"confidence": math.exp(-nll), "recovery": 1.0, "mutations": 0.0}
        beside = Entry(0, "native", decode(design.native), values)
    sequences = [design.to_string(row.tokens) for row in report.rows]
    whole = None if native is None else design.to_string(design.native)
    warnings = [
        *alarms.score_alarms(report.scores),
        *alarms.run_alarms(run),
        *alarms.complexity_alarms(sequences, whole),
    ]
    rows = design.table()
    protein = ProteinData(
        positions=Positions(
            labels=tuple(row.label for row in rows),
            chains=tuple(row.chain for row in rows),
            native=decode(design.native),
            kept=tuple(row.variable is None for row in rows),
        ),
        guided=guided.tokens.numpy(),
        weights=guided.weights,
        unguided=plain.tokens.numpy(),
        entries=entries,
        median_distance=report.median_distance,
        unguided_distance=median_distance(plain.tokens.numpy()),
        native=beside,
    )
    manifest = report.manifest
    data = ReportData(
        title=f"Guided design of {design.structure.name}",
        subtitle=design.header() + "".join(f"; {note}" for note in design.notes),
        run=run,
        unguided=RunData.from_result(report.unguided),
        scores=report.scores,
        warnings=warnings,
        notes=report.notes,
        entries=entries,
        protein=protein,
        settings=manifest["settings"],
        manifest={
            **manifest["versions"],
            "machine": manifest["machine"],
            **{f"weights {name} (sha256)": digest[:16] + "…" for name, digest in manifest["weights"].items()},
        },
        command=manifest["command"],
    )
    return render(data, columns=columns), warnings


def _entries(report: DesignReport) -> list[Entry]:
    labels = {key: score.name for key, score in zip(report.manifest["columns"], report.scores, strict=False)}
    reward = report.scores[0].name
    return [
        Entry(
            row.rank,
            row.name,
            decode(row.tokens),
            {
                reward: row.reward,
                **{labels[key]: value for key, value in row.scores.items()},
                "NLL": row.nll,
                "confidence": row.confidence,
                "recovery": row.recovery,
                "mutations": row.mutations,
                "log-weight": row.log_weight,
            },
        )
        for row in report.rows[:SHOWN]
    ]
