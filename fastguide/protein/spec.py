"""What a user may write for ``tie``, ``omit`` and ``bias``, on the command line or in Python.

====  ===========================================  =============================================================
wish  text (selections separated by ``;``)         Python
====  ===========================================  =============================================================
tie   ``A=B=C``, ``A1-9=B1-9``, ``A1,B2;A3,B4``    list of such texts, or of lists of addresses ``[["A1", "B2"]]``
omit  ``CM``, ``A10-12:PG``                        ``{"A10-12": "PG"}``, list of texts and mappings
bias  ``A=0.5,K=-1``, ``A10,B12:W=2,F=1``          ``{"A": 0.5}``, ``{"A10-12": {"W": 2}}``, list of these
====  ===========================================  =============================================================
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fastguide.protein.address import parse_addresses
from fastguide.protein.alphabet import letters
from fastguide.protein.structure import Structure

MOST_BIAS = 100.0
"""Logit units; e^100 settles any draw, and more would leave the range of the kernels at a low temperature."""

Tie = str | Sequence[str | Sequence[str]]
Omit = str | Mapping[str, str] | Sequence[str | Mapping[str, str]]
Bias = str | Mapping[str, float | Mapping[str, float]] | Sequence[str | Mapping[str, float | Mapping[str, float]]]


@dataclass(frozen=True)
class Preference:
    """Amounts added to the logits of some amino acids at some residues.

    Attributes:
        residues: indices, or None for everywhere.
        amounts: token to logit units; ``-inf`` forbids.
        written: what the user wrote, for error messages.
    """

    residues: tuple[int, ...] | None
    amounts: Mapping[int, float]
    written: str


def parse_ties(spec: Tie, structure: Structure) -> list[tuple[int, ...]]:
    """Return the sets of residues to be drawn together, overlapping ones merged, each sorted.

    Raises:
        ValueError: an address is wrong, the sides of ``=`` differ in length, or a set has fewer than two residues.
    """
    sets: list[list[int]] = []
    for item in [spec] if isinstance(spec, str) else spec:
        if isinstance(item, str):
            for part in filter(None, (part.strip() for part in item.split(";"))):
                sets += _tie_sets(part, structure)
        else:
            sets.append(parse_addresses(list(item), structure, argument="tie"))
    if not sets:
        raise ValueError("tie: nothing to tie; write A=B for whole chains or A10,B12 for single residues")
    for tied in sets:
        if len(set(tied)) < 2:
            raise ValueError(f"tie: {structure.labels[tied[0]]} alone; a tie needs two residues, such as A10,B12")
    return _merge(sets)


def _tie_sets(text: str, structure: Structure) -> list[list[int]]:
    sides = text.split("=")
    selections = [parse_addresses(side, structure, argument="tie") for side in sides]
    if len(sides) == 1:
        # Whole chains in a set are a slip for A=B, and would give a chain of one amino acid.
        chains = [address for address in re.split(r"[,\s]+", text) if address in structure.chain_ids]
        if chains:
            raise ValueError(
                f"tie: {text!r} would make all {len(selections[0])} residues one amino acid; write A=B to tie chains "
                "position by position"
            )
        return selections
    if len({len(selection) for selection in selections}) > 1:
        lengths = ", ".join(f"{side.strip()} {len(found)}" for side, found in zip(sides, selections, strict=True))
        raise ValueError(
            f"tie: {text!r} ties selections of different lengths ({lengths} residues); "
            "name equal stretches, such as A1-50=B1-50"
        )
    return [list(tied) for tied in zip(*selections, strict=True)]


def _merge(sets: Iterable[Iterable[int]]) -> list[tuple[int, ...]]:
    merged: list[set[int]] = []
    for tied in map(set, sets):
        overlapping = [other for other in merged if other & tied]
        merged = [other for other in merged if not other & tied]
        merged.append(tied.union(*overlapping))
    return sorted(tuple(sorted(tied)) for tied in merged)


def parse_omit(spec: Omit, structure: Structure) -> list[Preference]:
    """Return the omitted amino acids as preferences of ``-inf``.

    Raises:
        ValueError: an address or an amino acid is wrong.
    """
    preferences = []
    for item in _items(spec):
        for address, wish in _selections(item) if isinstance(item, str) else item.items():
            if not isinstance(wish, str):
                raise TypeError(f"omit: {address!r} maps to {wish!r}; give letters, such as {{{address!r}: 'PG'}}")
            forbidden = dict.fromkeys(letters(wish.strip(), "omit"), -math.inf)
            preferences.append(_preference(address, forbidden, wish, structure, "omit"))
    if not preferences:
        raise ValueError("omit: nothing given; write amino acids such as C, or A10-12:PG")
    return preferences


def parse_bias(spec: Bias, structure: Structure) -> list[Preference]:
    """Return the biased amino acids as preferences.

    Raises:
        ValueError: an address, an amino acid or a number is wrong; ``-inf`` is allowed, ``inf`` and nan are not.
    """
    preferences = []
    for item in _items(spec):
        for address, wish in _selections(item) if isinstance(item, str) else item.items():
            if isinstance(wish, (str, Mapping)):
                amounts = _read_amounts(wish) if isinstance(wish, str) else wish
            else:
                address, amounts = "", {address: wish}
            logits = {_one_letter(letter): _amount(letter, value) for letter, value in amounts.items()}
            preferences.append(_preference(address, logits, str(wish), structure, "bias"))
    if not any(preference.amounts for preference in preferences):
        raise ValueError("bias: nothing given; write amounts such as A=0.5, or A10-12:W=2")
    return preferences


def _items(spec: Omit | Bias) -> list[str | Mapping[str, object]]:
    return [spec] if isinstance(spec, (str, Mapping)) else list(spec)


def _selections(text: str) -> list[tuple[str, str]]:
    """Split ``A10-12:PG;C`` into [("A10-12", "PG"), ("", "C")]."""
    found = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        address, _, wish = part.rpartition(":")
        found.append((address, wish))
    return found


def _preference(
    address: str, amounts: Mapping[int, float], wish: str, structure: Structure, argument: str
) -> Preference:
    if not address:
        return Preference(None, amounts, wish)
    # A colon may stand inside an address, but only before a number.
    if re.search(r"=|:[A-Za-z]", address):
        raise ValueError(f"{argument}: cannot read {address + ':' + wish!r}; separate selections by ';'")
    residues = parse_addresses(address, structure, argument=argument)
    return Preference(tuple(residues), amounts, f"{address}:{wish}")


def _read_amounts(text: str) -> dict[str, float | str]:
    amounts: dict[str, float | str] = {}
    for part in text.split(","):
        letter, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise ValueError(f"bias: cannot read {part.strip()!r}; write A=0.5,K=-1 or A10-12:W=2")
        amounts[letter] = value
    return amounts


def _one_letter(letter: str) -> int:
    tokens = letters(letter, "bias")
    if len(tokens) != 1:
        raise ValueError(f"bias: {letter!r} is more than one amino acid; write each with its own number")
    return tokens[0]


def _amount(letter: str, value: object) -> float:
    try:
        amount = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        amount = math.nan
    if math.isnan(amount) or (abs(amount) > MOST_BIAS and amount != -math.inf):
        raise ValueError(
            f"bias: {letter}={value}: expected a number of logit units (within ±{MOST_BIAS:g}, or -inf to forbid)"
        )
    return amount
