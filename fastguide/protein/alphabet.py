"""The twenty amino acids as tokens, and the names under which residues stand in structure files."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

ALPHABET = "ACDEFGHIKLMNPQRSTVWY"
UNKNOWN = len(ALPHABET)

# Protonation and bonding states under the names that Amber, CHARMM and GROMACS write; no residue table of the
# Protein Data Bank lists them.
FORCE_FIELD_NAMES = {
    **dict.fromkeys(("HID", "HIE", "HIP", "HSD", "HSE", "HSP"), "H"),
    **dict.fromkeys(("CYX", "CYM", "CYS2"), "C"),
    "ASH": "D",
    "GLH": "E",
    "LYN": "K",
    "ARN": "R",
    "TYM": "Y",
}

# Selenocysteine and pyrrolysine have letters of their own, which are not among the twenty.
RARE_LETTERS = {"U": "C", "O": "K"}


def token(letter: str) -> int:
    """Return the token of a one-letter code, `UNKNOWN` for a letter that is none of the twenty."""
    index = ALPHABET.find(RARE_LETTERS.get(letter, letter)) if len(letter) == 1 else -1
    return index if index >= 0 else UNKNOWN


def encode(text: str) -> Tensor:
    """Return int64 tokens ``[len(text)]`` of a string of one-letter codes; ``X`` becomes `UNKNOWN`.

    Raises:
        ValueError: a letter is neither one of the twenty nor ``X``.
    """
    unknown = sorted(set(text) - set(ALPHABET) - {"X"})
    if unknown:
        raise ValueError(f"text: {unknown[0]!r} is no amino acid; use the letters {ALPHABET} (or X for unknown)")
    return torch.tensor([token(letter) for letter in text], dtype=torch.int64)


def decode(tokens: Tensor | Iterable[int]) -> str:
    """Return the one-letter codes of tokens ``[L]``; `UNKNOWN` becomes ``X``."""
    ids = tokens.tolist() if isinstance(tokens, Tensor) else tokens
    return "".join((ALPHABET + "X")[i] for i in ids)


def letters(text: str, argument: str) -> list[int]:
    """Return the tokens of a set of amino-acid letters that a user wrote, such as ``"CM"``.

    Raises:
        ValueError: it is empty or holds anything but the twenty letters; the message names ``argument``.
    """
    for letter in text:
        if letter not in ALPHABET:
            raise ValueError(f"{argument}: unknown amino acid {letter!r} in {text!r}; the letters are {ALPHABET}")
    if not text:
        raise ValueError(f"{argument}: no amino acid given; write letters of {ALPHABET}")
    return [ALPHABET.index(letter) for letter in text]
