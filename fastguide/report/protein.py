"""The sections of a protein design: logo, best designs, composition."""

from __future__ import annotations

from html import escape

import numpy as np

from fastguide.report import charts
from fastguide.report.data import Entry, Positions, ProteinData
from fastguide.report.diversity import composition
from fastguide.report.logo import CHEMISTRY
from fastguide.report.page import figure, section
from fastguide.report.sections import column_decimals, entries_section, number_cells

LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def logo_figure(protein: ProteinData) -> str:
    """Return the logo against the native."""
    content = charts.logo(protein.positions, LETTERS, protein.guided, protein.weights)
    caption = (
        "Letter height is information: a full column (4.3 bits, a line each bit) means that all guided samples agree. "
        "The native stands below, orange where the most frequent letter differs from it; numbers are the author's."
    )
    if any(protein.positions.kept):
        caption += " Pale letters were kept."
    key = [(group, f"{group} {letters}") for group, letters in CHEMISTRY.items()]
    return figure("Sequence logo of the guided samples", content, caption, key=key, cls="full")


def composition_figure(protein: ProteinData) -> str:
    """Return amino-acid shares, guided, unguided and native."""
    free = np.array([not kept for kept in protein.positions.kept])
    native = np.array([LETTERS.find(letter) for letter in protein.positions.native])[None, :]
    known = native[:, free & (native[0] >= 0)]
    shares = (
        composition(protein.guided[:, free], protein.weights),
        composition(protein.unguided[:, free]) if len(protein.unguided) else None,
        composition(known) if known.size else None,
    )
    wide = charts.composition_chart(LETTERS, *shares, width=1080)
    narrow = charts.composition_chart(LETTERS, *shares, width=344)
    key = [("unguided", "unguided"), ("guided", "guided")] + ([("native", "native")] if known.size else [])
    return figure(
        "Amino-acid composition",
        f'<div class="wide">{wide}</div><div class="narrow">{narrow}</div>',
        "Share of each amino acid at the designed positions, most frequent first; one bar far above its neighbours is "
        "a sign of low complexity.",
        key=key,
        cls="full",
    )


def designs_section(protein: ProteinData, columns: dict[str, str]) -> str:
    """Return the table of designs with their mutations."""
    every = [*([] if protein.native is None else [protein.native]), *protein.entries]
    decimals = column_decimals(every, columns)
    rows = [_entry(entry, protein.positions, decimals) for entry in every]
    lead = "Best first by the optimised reward. Coloured letters differ from the native; underlined ones were kept."
    return entries_section("Best designs", lead, columns, rows)


def _entry(entry: Entry, positions: Positions, decimals: dict[str, int]) -> str:
    letters = "".join(_block(entry.sequence, positions, block) for block in positions.blocks)
    return (
        f"<tbody><tr>{number_cells(entry, decimals)}</tr><tr class=sequence><td colspan={len(decimals) + 1}>"
        f'<div class="residues" title="{escape(entry.name)}">{letters}</div></td></tr></tbody>'
    )


def _block(sequence: str, positions: Positions, block: range) -> str:
    parts = []
    for i in block:
        letter, native = sequence[i], positions.native[i]
        if positions.kept[i]:
            parts.append(f"<u>{letter}</u>")
        elif letter != native:
            parts.append(f"<b>{letter}</b>")
        else:
            parts.append(letter)
    # Neighbours of one kind share an element, which keeps long tables small.
    text = "".join(parts).replace("</b><b>", "").replace("</u><u>", "")
    return f"<span>{text}</span>"


def protein_sections(protein: ProteinData, columns: dict[str, str]) -> str:
    """Return all sections of a design."""
    pictures = f'<div class="figures">{logo_figure(protein)}{composition_figure(protein)}</div>'
    return designs_section(protein, columns) + section("Sequences", pictures)
