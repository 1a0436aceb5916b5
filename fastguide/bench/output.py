"""What a run of benchmarks writes: JSON for machines, Markdown for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastguide.bench.case import OURS

NOTES = (
    "Ratios are of medians, competitors taking turns in one process; in brackets the 10 % and 90 % quantiles of the ratios of "
    "single rounds. GB/s counts what any method must move (inputs read once, outputs written once); “of copy” is its share of "
    "the bandwidth that a large `copy_` reached in the same run, and exceeds 1 where the data stay in the caches."
)


def save(folder: Path, name: str, content: Mapping[str, Any], markdown: str) -> list[Path]:
    """Write ``name.json`` and ``name.md`` into a folder, which is made; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.json", folder / f"{name}.md"]
    files[0].write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    files[1].write_text(markdown, encoding="utf-8")
    return files


def heading(machine: Mapping[str, Any], copy: float) -> str:
    """Say in one line where the figures come from."""
    packages = ", ".join(
        f"{name} {machine[name]}" for name in ("torch", "numpy", "numba", "particles", "blackjax") if name in machine
    )
    bound = machine["omp_proc_bind"] or "not set"
    return (
        f"{machine['cpu']} (family {machine['cpu_family']}), SIMD level {machine['simd']}, {machine['threads']} threads, "
        f"OMP_PROC_BIND {bound}; {packages}; copy bandwidth {copy / 1e9:.1f} GB/s"
    )


def rows_markdown(title: str, about: str, rows: Sequence[Mapping[str, Any]], absent: Mapping[str, str]) -> str:
    """Return a table a job: sizes down, competitors within."""
    parts = [f"# {title}", about, NOTES]
    jobs: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        jobs.setdefault((row["op"], row["job"]), []).append(row)
    for (op, job), members in jobs.items():
        lines = ["| N | competitor | time | against ours | GB/s | of copy |", "|--:|---|--:|--:|--:|--:|"]
        lines += [
            f"| {row['n']:,} | {row['competitor']} | {duration(row['seconds'])} | {_against(row)} | {_number(row['gb_per_s'])} "
            f"| {_number(row['of_copy'])} |"
            for row in members
        ]
        parts += [f"## {op}: {job}", "\n".join(lines)]
    if absent:
        parts += ["## Left out", "\n".join(f"- {name}: {why}" for name, why in absent.items())]
    return "\n\n".join(parts) + "\n"


def bars_markdown(about: str, results: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of figures to reach."""
    lines = [
        "| | against | bar | measured | ours | theirs | of copy | met |",
        "|---|---|--:|--:|--:|--:|--:|---|",
        *(f"| {' | '.join(_bar(r))} |" for r in results),
    ]
    return "\n\n".join(["# Figures to reach", about, NOTES, "\n".join(lines)]) + "\n"


def bar_line(r: Mapping[str, Any]) -> str:
    """Return a figure to reach as one line of text."""
    what, against, bar, measured, ours, theirs, _, met = _bar(r)
    if r["met"] is None:
        return f"{'-':>8}  {what}, {against}: {met}"
    return f"{met:>8}  {what}, {against}: {measured}, bar {bar}  ({ours}; {r['peer']} {theirs})"


def _bar(r: Mapping[str, Any]) -> list[str]:
    bar = f"{'≤' if r['at_most'] else '≥'} {r['bar']:g}"
    if r["met"] is None:
        return [r["what"], r["against"], bar, "", "", "", "", r["why"]]
    low, high = r["ratio_10_90"]
    measured = f"{r['ratio']:.3g} ({low:.3g}–{high:.3g})"
    times = [duration(r["seconds"]), duration(r["peer_seconds"])]
    return [r["what"], r["against"], bar, measured, *times, _number(r["of_copy"]), "met" if r["met"] else "not met"]


def case_lines(rows: Iterable[Mapping[str, Any]], absent: Mapping[str, str]) -> str:
    """Return a case as lines of text."""
    rows = list(rows)
    lines = [f"{rows[0]['op']}: {rows[0]['job']}, N = {rows[0]['n']:,}"]
    lines += [
        f"  {row['competitor']:<46}{duration(row['seconds']):>10}  {_against(row):>22}  {_number(row['of_copy']):>6}"
        for row in rows
    ]
    lines += [f"  {name:<46}{'-':>10}  {why}" for name, why in absent.items()]
    return "\n".join(lines)


def _against(row: Mapping[str, Any]) -> str:
    if row["ratio"] is None:
        return ""
    if row["competitor"] == OURS:
        return "1"
    low, high = row["ratio_10_90"]
    return f"{row['ratio']:.3g} ({low:.3g}–{high:.3g})"


def _number(x: float | None) -> str:
    return "" if x is None else f"{x:.2g}"


def duration(seconds: float) -> str:
    """Return seconds with three digits and a unit."""
    for limit, unit, factor in ((1e-3, "µs", 1e6), (1.0, "ms", 1e3)):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"
