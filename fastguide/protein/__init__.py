"""Proteins: backbones from structure files, residue addresses, and what to design on them."""

from fastguide.protein.address import parse_addresses
from fastguide.protein.alphabet import ALPHABET, UNKNOWN, decode, encode
from fastguide.protein.design import Design, Row
from fastguide.protein.structure import ResidueLabel, Structure, read_structure

__all__ = [
    "ALPHABET",
    "UNKNOWN",
    "Design",
    "ResidueLabel",
    "Row",
    "Structure",
    "decode",
    "encode",
    "parse_addresses",
    "read_structure",
]
