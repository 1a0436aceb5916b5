from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch

import fastguide
from fastguide.protein.alphabet import ALPHABET, token
from fastguide.protein.structure import ResidueLabel, Structure

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="session")
def backbones() -> dict[str, Path]:
    """Real files: ubiquitin (with waters), crambin (alternative residues at 22 and 25), adenylate kinase."""
    bundled = Path(fastguide.__file__).parent / "data" / "1UBI.pdb"
    return {"1UBI": bundled, "1EJG": DATA / "1EJG.pdb.gz", "1AKE": DATA / "1AKE.pdb.gz"}


@pytest.fixture(scope="session")
def toy() -> Callable[..., Structure]:
    """``toy({"A": "1 2 2A 5"}, letters="MKVL", broken="A2")``: a structure from author numbers, without a file."""

    def make(chains: Mapping[str, str | Sequence[str]], letters: str | None = None, broken: str = "") -> Structure:
        labels, chain = [], []
        for which, (name, numbers) in enumerate(chains.items()):
            for text in numbers.split() if isinstance(numbers, str) else numbers:
                number, code = re.fullmatch(r"(-?\d+)([A-Za-z]?)", text).groups()
                labels.append((name, int(number), code))
                chain.append(which)
        if letters is None:
            letters = "".join(ALPHABET[i % 20] for i in range(len(labels)))
        coordinates = torch.arange(12.0 * len(labels)).reshape(-1, 4, 3)
        for i, (name, number, code) in enumerate(labels):
            if f"{name}{number}{code}" in broken.split():
                coordinates[i, 3] = torch.nan
        return Structure(
            name="toy",
            coordinates=coordinates,
            tokens=torch.tensor([token(letter) for letter in letters]),
            chain=torch.tensor(chain),
            chain_ids=tuple(chains),
            residue_index=torch.arange(len(labels)),
            labels=tuple(
                ResidueLabel(name, number, code, "UNK" if letter == "X" else letter)
                for (name, number, code), letter in zip(labels, letters, strict=True)
            ),
        )

    return make


@pytest.fixture
def write_pdb(tmp_path: Path) -> Callable[..., Path]:
    """``write_pdb(["A 10 MET", "A 10A ALA"])``: a PDB file of those residues; ``atoms`` names those written."""

    def write(
        residues: Sequence[str],
        atoms: Sequence[str] = ("N", "CA", "C", "O"),
        record: str = "ATOM",
        ter: bool = True,
        name: str = "made.pdb",
        skip: Mapping[str, Sequence[str]] = {},
    ) -> Path:
        lines, serial, previous = [], 0, None
        for i, residue in enumerate(residues):
            chain, number, kind = residue.split()
            if ter and previous not in (None, chain):
                lines.append("TER")
            previous = chain
            number, code = re.fullmatch(r"(-?\d+)([A-Z]?)", number).groups()
            for a, atom in enumerate(atoms):
                if atom in skip.get(residue, ()):
                    continue
                serial += 1
                lines.append(
                    f"{record:<6}{serial:>5}  {atom:<3} {kind:<4}{chain}{number:>4}{code or ' ':<1}   "
                    f"{3.8 * i:8.3f}{1.3 * a:8.3f}{0.5 * (a % 2):8.3f}{1:6.2f}{20:6.2f}          {atom[0]:>2}"
                )
        path = tmp_path / name
        path.write_text("\n".join([*lines, *(["TER"] if ter else []), "END", ""]))
        return path

    return write
