"""Sequence logos: letters whose height is the information at their position.

A letter is a stroke drawing in a box of 100 × 100, defined once a page and stretched to its place, so a logo looks the
same whatever fonts a reader has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from fastguide.report.svg import drawing, element, number

BITS = math.log2(20)
"""Information of a position where all sequences agree."""

_STROKES = {
    "A": "M8 100L50 6L92 100M24 67H76",
    "C": "M88 31A41 41 0 1 0 88 69",
    "D": "M9 8V92M0 9H44C75 9 91 25 91 50C91 75 75 91 44 91H0",
    "E": "M9 0V100M9 9H94M9 50H84M9 91H94",
    "F": "M9 0V100M9 9H96M9 52H84",
    "G": "M88 31A41 41 0 1 0 93 53H54",
    "H": "M9 0V100M91 0V100M9 50H91",
    "I": "M50 0V100",
    "K": "M9 0V100M88 0L9 66M33 46L92 100",
    "L": "M9 0V100M9 91H96",
    "M": "M9 100V6L50 78L91 6V100",
    "N": "M9 100V6L91 94V0",
    "P": "M9 100V0M9 9H57C81 9 91 19 91 33C91 48 81 58 57 58H9",
    "Q": "M50 9C24 9 9 26 9 50C9 74 24 91 50 91C76 91 91 74 91 50C91 26 76 9 50 9ZM58 64L95 99",
    "R": "M9 100V0M9 9H57C80 9 90 18 90 31C90 45 80 54 57 54H9M55 54L92 100",
    "S": "M86 27C82 15 69 9 51 9C28 9 14 17 14 30C14 61 88 39 88 70C88 84 73 91 51 91C30 91 16 84 11 71",
    "T": "M2 9H98M50 9V100",
    "V": "M8 0L50 94L92 0",
    "W": "M7 0L28 94L50 22L72 94L93 0",
    "Y": "M8 0L50 56V100M50 56L92 0",
}

CHEMISTRY = {
    "hydrophobic": "AILMV",
    "aromatic": "FWY",
    "polar": "CNQST",
    "positive": "HKR",
    "negative": "DE",
    "special": "GP",
}
"""The groups by which letters are coloured."""

GROUP_OF = {letter: group for group, letters in CHEMISTRY.items() for letter in letters}


def glyphs() -> str:
    """Return the invisible drawing that defines the letters; a page needs it once."""
    paths = "".join(element("path", id=f"aa-{letter}", d=path) for letter, path in _STROKES.items())
    return f'<svg width="0" height="0" class="glyphs" aria-hidden="true"><defs>{paths}</defs></svg>'


def information(shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the information in bits ``[L]`` of amino-acid shares ``[L, 20]``: log2 20 minus their entropy."""
    logs = np.log2(np.where(shares > 0, shares, 1.0))
    bits: NDArray[np.float64] = np.maximum(0.0, BITS + (shares * logs).sum(axis=1))
    return bits


def logo_block(
    letters: str,
    shares: NDArray[np.float64],
    labels: Sequence[str],
    native: str,
    kept: Sequence[bool],
    *,
    column: float = 17.0,
    height: float = 84.0,
) -> str:
    """Draw a few neighbouring positions; blocks side by side wrap like words.

    Args:
        letters: the amino acids of the columns of ``shares``.
        shares: ``[n, 20]``.
        labels: author labels of the positions.
        native: their native letters.
        kept: which positions were not designed: drawn muted.
    """
    bits = information(shares)
    width = column * len(labels)
    top = 4.0
    lines = "".join(f"M0 {number(top + height * (1 - b / BITS))}H{number(width)}" for b in (1, 2, 3, 4))
    parts = [element("path", d=lines, cls="grid")]
    for i, label in enumerate(labels):
        order = np.argsort(shares[i], kind="stable")
        y, x = top + height, i * column
        stack = []
        for a in order:
            tall = height * float(bits[i] * shares[i, a]) / BITS
            if tall < 0.8:
                y -= tall
                continue
            y -= tall
            box = f"translate({number(x + 1)} {number(y)}) scale({(column - 2) / 100:.3f} {tall / 100:.4f})"
            letter = letters[a]
            group = "kept" if kept[i] else GROUP_OF[letter]
            stack.append(element("use", href=f"#aa-{letter}", transform=box, cls=f"aa {group}"))
        common = ", ".join(f"{letters[a]} {shares[i, a]:.0%}" for a in order[::-1][:4] if shares[i, a] >= 0.01)
        tip = f"{label}: {common}" + (f"; native {native[i]}" if native[i] != "X" else "")
        tip += " (kept)" if kept[i] else ""
        hit = element("rect", x=x, y=top, width=column, height=height, cls="hit")
        parts.append(element("g", element("title", escape(tip)) + "".join(stack) + hit))
        cls = "native same" if letters[int(order[-1])] == native[i] else "native"
        place = {"x": x + column / 2, "y": top + height + 14, "text_anchor": "middle"}
        parts.append(element("text", native[i], **place, cls=cls))
    parts.append(element("path", d=f"M0 {number(top + height)}H{number(width)}", cls="axis"))
    parts.append(element("text", escape(labels[0]), x=1.0, y=top + height + 28, cls="tick"))
    total = top + height + 32
    described = f"logo of positions {labels[0]} to {labels[-1]}"
    return drawing("".join(parts), width, total, described, "logo-block").replace(
        "<svg ", f'<svg width="{number(width)}" height="{number(total)}" ', 1
    )
