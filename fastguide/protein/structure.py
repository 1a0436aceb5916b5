"""Backbones: PDB and mmCIF files to the coordinates, tokens and numbering that an inverse-folding model reads."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastguide.errors import BackendUnavailable
from fastguide.protein.alphabet import FORCE_FIELD_NAMES, UNKNOWN, decode, token

BACKBONE = ("N", "CA", "C", "O")

# ProteinMPNN was trained with this offset between the indices of one chain and the next.
CHAIN_OFFSET = 100


@dataclass(frozen=True)
class ResidueLabel:
    """How the author of a file names a residue.

    Attributes:
        chain: chain name, which may be longer than a letter in mmCIF and empty in PDB.
        number: residue number, possibly negative.
        insertion: insertion code, a letter or empty.
        name: residue name as in the file (``MSE``, ``HIE``).
    """

    chain: str
    number: int
    insertion: str
    name: str

    def __str__(self) -> str:
        return f"{self.chain}{self.number}{self.insertion}"


@dataclass(frozen=True, eq=False)
class Structure:
    """The protein chains of one model of a file, residue after residue in the order of the file.

    Attributes:
        name: file name without its endings.
        coordinates: float32 ``[R, 4, 3]`` of N, CA, C, O in Å, nan where an atom is missing.
        tokens: int64 ``[R]`` in 0..19, 20 = unknown.
        chain: int64 ``[R]``, index into ``chain_ids``.
        chain_ids: author chain names in the order of the file.
        residue_index: int64 ``[R]``, ProteinMPNN's: counts residues, with those that the author numbering skips, and
            100 more from one chain to the next.
        labels: author chain, number, insertion code and name of each residue.
    """

    name: str
    coordinates: Tensor
    tokens: Tensor
    chain: Tensor
    chain_ids: tuple[str, ...]
    residue_index: Tensor
    labels: tuple[ResidueLabel, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def has_backbone(self) -> Tensor:
        """bool ``[R]``: whether all four backbone atoms are there."""
        return self.coordinates.isfinite().all(dim=2).all(dim=1)

    def residues_of(self, chain_id: str) -> list[int]:
        """Return the indices of the residues of a chain.

        Raises:
            ValueError: there is no such chain.
        """
        if chain_id not in self.chain_ids:
            raise ValueError(f"chain {chain_id!r}: {self.name} has no such chain; it has {', '.join(self.chain_ids)}")
        which = self.chain_ids.index(chain_id)
        return [i for i, c in enumerate(self.chain.tolist()) if c == which]

    def sequence(self, chain_id: str) -> str:
        """Return the one-letter sequence of a chain, ``X`` for unknown residues."""
        return decode(self.tokens[self.residues_of(chain_id)])


def read_structure(source: str | Path, *, chains: str | Sequence[str] | None = None, model: int = 0) -> Structure:
    """Read the protein chains of a PDB or mmCIF file, gzipped or not.

    Waters, ligands, caps and nucleic acids are skipped. Modified residues become their parent (MSE → M, HIE → H). Of
    alternative locations the one of the highest mean occupancy is taken, the first of equals, for all atoms of a
    residue together. Residues that lack backbone atoms stay, with nan.

    Args:
        source: path of the file.
        chains: author names of the chains to keep (a list, or ``"A,B"``), None for all. The order is the file's.
        model: index of the model, from 0.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file cannot be read as a structure, holds no protein or no full backbone, or lacks a chain or
            the model asked for.
        BackendUnavailable: gemmi is not installed.
    """
    path = Path(source)
    model_found = _read_model(path, model)
    groups = {chain.name: list(_residue_groups(chain)) for chain in model_found}
    groups = {name: found for name, found in groups.items() if found}
    if not groups:
        raise ValueError(f"{path}: no protein in this file; give a PDB or mmCIF file with amino-acid residues")
    if isinstance(chains, str):
        chains = [chain for chain in chains.split(",") if chain]
    if chains is not None:
        if not chains:
            raise ValueError("chains: an empty list; leave it out to take all chains")
        for wanted in chains:
            if wanted not in groups:
                raise ValueError(
                    f"chains: {path} has no protein chain {wanted!r}; "
                    f"it has {', '.join(groups)} (author names, case matters)"
                )
        groups = {name: found for name, found in groups.items() if name in chains}
    structure = _assemble(_stem(path), groups)
    _check_backbone(structure, path)
    return structure


def _read_model(path: Path, model: int) -> Any:
    try:
        import gemmi
    except ImportError as error:
        raise BackendUnavailable(
            'reading a structure needs gemmi, which is not installed: pip install "fastguide[protein]"'
        ) from error
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; give the path of a PDB or mmCIF file")
    if path.is_dir():
        raise ValueError(f"{path}: this is a folder; give one PDB or mmCIF file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path}: the file is empty; download or copy it again")
    try:
        parsed = gemmi.read_structure(str(path), format=gemmi.CoorFormat.Detect)
    # gemmi raises whatever its C++ exceptions map to, and all of them say that the file is bad.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"{path}: not a readable PDB or mmCIF file, truncated perhaps ({reason[0]}); download or copy it again"
        ) from error
    if not len(parsed) or not parsed[0].count_atom_sites():
        raise ValueError(f"{path}: no atoms in this file; give a complete PDB or mmCIF file")
    if not 0 <= model < len(parsed):
        raise ValueError(f"model: {model} asked for, but {path} has {len(parsed)}; give 0 to {len(parsed) - 1}")
    parsed.setup_entities()
    return parsed[model]


def _stem(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    for ending in (".pdb", ".ent", ".cif", ".mmcif", ".pdb1"):
        name = name.removesuffix(ending)
    return name


def _residue_groups(chain: Any) -> Iterator[list[Any]]:
    """Yield the protein residues of a chain; those that share one place in the sequence come together."""
    group: list[Any] = []
    for residue in chain:
        if _letter(residue) is None:
            continue
        if group and residue.seqid != group[0].seqid:
            yield group
            group = []
        group.append(residue)
    if group:
        yield group


def _letter(residue: Any) -> str | None:
    """Return the one-letter code of an amino acid of a chain, ``X`` where it is unknown, None for all else."""
    import gemmi

    in_polymer = residue.entity_type == gemmi.EntityType.Polymer
    # Programs that write TER inside a chain make a parser take what follows for ligands.
    if not in_polymer and residue.het_flag != "A":
        return None
    if residue.name in FORCE_FIELD_NAMES:
        return FORCE_FIELD_NAMES[residue.name]
    known = gemmi.find_tabulated_residue(residue.name)
    if known.found():
        return known.one_letter_code.upper() if known.is_amino_acid() else None
    return "X" if all(residue.find_atom(atom, "*") for atom in ("N", "CA", "C")) else None


def _conformer(group: list[Any]) -> tuple[Any, dict[str, Any]]:
    """Return the residue and the backbone atoms of the best occupied alternative location of one place in the chain.

    Two residues may share a place (Pro or Ser 22 of crambin); atoms common to both then stand under the first only.
    """
    occupancy: dict[str, list[float]] = {}
    owner: dict[str, Any] = {}
    for residue in group:
        for atom in residue:
            if atom.altloc != "\0" and not atom.is_hydrogen():
                occupancy.setdefault(atom.altloc, []).append(atom.occ)
                owner.setdefault(atom.altloc, residue)
    # max takes the first of equals, and a dict keeps the order of the file.
    best = max(occupancy, key=lambda altloc: math.fsum(occupancy[altloc]) / len(occupancy[altloc]), default="\0")
    chosen = owner.get(best, group[0])
    atoms: dict[str, Any] = {}
    rank = {best: 0, "\0": 1}
    for residue in sorted(group, key=lambda residue: residue is not chosen):
        for atom in sorted(residue, key=lambda atom: (rank.get(atom.altloc, 2), -atom.occ)):
            if atom.name in BACKBONE and (atom.altloc in rank or residue is chosen):
                atoms.setdefault(atom.name, atom)
    return chosen, atoms


def _assemble(name: str, groups: dict[str, list[list[Any]]]) -> Structure:
    coordinates, tokens, chain, residue_index, labels = [], [], [], [], []
    position = -1
    for which, (chain_id, found) in enumerate(groups.items()):
        position += 1 if which == 0 else 1 + CHAIN_OFFSET
        previous: int | None = None
        for group in found:
            residue, atoms = _conformer(group)
            number = residue.seqid.num
            if previous is not None:
                # An insertion code or a numbering that runs backwards still is the next residue.
                position += max(1, number - previous)
            previous = number
            nowhere = [math.nan] * 3
            coordinates.append([atoms[atom].pos.tolist() if atom in atoms else nowhere for atom in BACKBONE])
            letter = _letter(residue)
            tokens.append(token(letter) if letter else UNKNOWN)
            chain.append(which)
            residue_index.append(position)
            labels.append(ResidueLabel(chain_id, number, residue.seqid.icode.strip(), residue.name))
    return Structure(
        name=name,
        coordinates=torch.tensor(coordinates, dtype=torch.float32),
        tokens=torch.tensor(tokens, dtype=torch.int64),
        chain=torch.tensor(chain, dtype=torch.int64),
        chain_ids=tuple(groups),
        residue_index=torch.tensor(residue_index, dtype=torch.int64),
        labels=tuple(labels),
    )


def _check_backbone(structure: Structure, path: Path) -> None:
    complete = int(structure.has_backbone.sum())
    if 2 * complete >= len(structure):
        return
    present = structure.coordinates.isfinite().all(dim=2).sum(dim=0).tolist()
    if present[1] and not present[0] and not present[2]:
        raise ValueError(
            f"{path}: only CA atoms in this file; the model reads N, CA, C and O, so give a file with the full backbone"
        )
    missing = ", ".join(atom for atom, count in zip(BACKBONE, present, strict=True) if count < len(structure))
    raise ValueError(
        f"{path}: {len(structure) - complete} of {len(structure)} residues lack backbone atoms ({missing}); "
        "give a file with N, CA, C and O of most residues"
    )
