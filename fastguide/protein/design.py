"""What is to be designed: which residues are free, tied, biased or kept, on which backbone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from fastguide.protein.address import parse_addresses
from fastguide.protein.alphabet import ALPHABET, UNKNOWN, decode
from fastguide.protein.spec import Bias, Omit, Preference, Tie, parse_bias, parse_omit, parse_ties
from fastguide.protein.structure import Structure


class Row(NamedTuple):
    """One residue of the output.

    Attributes:
        label: author chain, number and insertion code, ``A52B``.
        column: index in the output sequences, from 0.
        chain: author chain name.
        native: one-letter code in the file.
        state: ``designed``, ``tied``, ``fixed`` or ``no backbone`` (kept as well).
        variable: position of the free variable that sets it, None where it is kept.
    """

    label: str
    column: int
    chain: str
    native: str
    state: str
    variable: int | None


@dataclass(frozen=True, eq=False)
class Design:
    """A backbone and the choices to make on it.

    Make one with `create`. V is the number of free variables, R of residues of the structure, R_out of residues of the
    designed chains.

    Attributes:
        structure: the backbone.
        variables: residue indices drawn together, one tuple a free variable; ordered by their first residue.
        bias: float32 ``[V, 20]`` in logit units, added before the temperature; ``-inf`` forbids.
        output: int64 ``[R_out]``, the residues that are the columns of decoded sequences.
    """

    structure: Structure
    variables: tuple[tuple[int, ...], ...]
    bias: Tensor
    output: Tensor

    @classmethod
    def create(
        cls,
        structure: Structure,
        *,
        chains: str | Sequence[str] | None = None,
        fix: str | Sequence[str] | None = None,
        redesign: str | Sequence[str] | None = None,
        tie: Tie | None = None,
        omit: Omit | None = None,
        bias: Bias | None = None,
    ) -> Design:
        """Read a user's wishes.

        Residues without a full backbone cannot be designed and keep their native amino acid. Kept residues whose amino
        acid is unknown are left out of the output, as no reward could score them. `notes` lists both.

        Args:
            structure: the backbone.
            chains: names of the chains to design, None for all; the others are context, seen by the model and kept.
            fix: addresses of residues to keep.
            redesign: addresses of the only residues to design; excludes ``fix``.
            tie: residues that get the same amino acid. ``"A=B=C"`` ties whole chains (or equally long selections) by
                position, whatever their numbers; ``"A10,B12;A11,B13"`` or a list of lists of addresses
                ties sets. Overlapping sets merge.
            omit: amino acids never drawn: ``"CM"``, ``"A10-12:PG"``, ``{"A10-12": "PG"}`` or a list of these.
            bias: logit units: ``"A=0.5,K=-1"``, ``"A10:W=2"``, ``{"A": 0.5}``, ``{"A10-25": {"A": 1.0}}`` or a list of
                these; amounts for the same residue add up. A tied variable gets the mean of its residues' biases, as
                its logits are the mean of theirs.

        Raises:
            ValueError: a wish cannot be read, selects nothing, contradicts another, or leaves nothing to design.
        """
        designed = _designed_residues(structure, chains)
        free = _free_residues(structure, designed, fix, redesign)
        sets = parse_ties(tie, structure) if tie is not None else []
        variables = _variables(structure, designed, free, sets)
        preferences = parse_omit(omit, structure) if omit is not None else []
        omitted = len(preferences)
        preferences += parse_bias(bias, structure) if bias is not None else []
        for i, preference in enumerate(preferences):
            if preference.residues is not None and free.isdisjoint(preference.residues):
                argument = "omit" if i < omitted else "bias"
                raise ValueError(f"{argument}: {preference.written!r} concerns only kept residues; leave it out")
        known = structure.tokens != UNKNOWN
        return cls(
            structure=structure,
            variables=variables,
            bias=_bias(structure, variables, preferences),
            output=torch.tensor([i for i in designed if i in free or known[i]], dtype=torch.int64),
        )

    @property
    def length(self) -> int:
        """The number V of free variables: the positions that a process draws."""
        return len(self.variables)

    @cached_property
    def free(self) -> tuple[int, ...]:
        """Indices of the designed residues, sorted."""
        return tuple(sorted(i for variable in self.variables for i in variable))

    @cached_property
    def fixed(self) -> tuple[int, ...]:
        """Indices of the residues of the output that keep their native amino acid, sorted."""
        free = set(self.free)
        return tuple(i for i in self.output.tolist() if i not in free)

    @property
    def native(self) -> Tensor:
        """int64 ``[R_out]``: the file's tokens of the output; 20 where a designed residue had no known amino acid."""
        return self.structure.tokens[self.output]

    @cached_property
    def chain_lengths(self) -> tuple[int, ...]:
        """Number of output residues of each designed chain, in the order of the columns."""
        return tuple(torch.unique_consecutive(self.structure.chain[self.output], return_counts=True)[1].tolist())

    @cached_property
    def variable_of(self) -> Tensor:
        """int64 ``[R_out]``: the free variable that sets each output residue, -1 where it is kept."""
        owner = {i: v for v, variable in enumerate(self.variables) for i in variable}
        return torch.tensor([owner.get(i, -1) for i in self.output.tolist()], dtype=torch.int64)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Sentences on residues that cannot be designed or shown, for the header of a run."""
        labels = self.structure.labels
        shown = set(self.output.tolist())
        chains = set(self.structure.chain[self.output].tolist())
        incomplete = [i for i in self._without_backbone if i in shown]
        hidden = [i for i, c in enumerate(self.structure.chain.tolist()) if c in chains and i not in shown]
        found = []
        if incomplete:
            found.append(f"kept, as backbone atoms are missing: {', '.join(str(labels[i]) for i in incomplete)}")
        if hidden:
            named = ", ".join(f"{labels[i]} ({labels[i].name})" for i in hidden)
            found.append(f"left out of the output, as the amino acid is unknown: {named}")
        return tuple(found)

    def header(self) -> str:
        """Return one line that counts the residues of the output by what happens to them."""
        free = self.variable_of[self.variable_of >= 0]
        sizes = torch.tensor([len(variable) for variable in self.variables])
        forbidden = self.bias.isneginf().any(dim=1)
        biased = (self.bias.isfinite() & (self.bias != 0)).any(dim=1)
        counts = {
            "designed": len(free),
            "fixed": len(self.fixed),
            "tied": int((sizes[free] > 1).sum()),
            "biased": int(biased[free].sum()),
            "omitted": int(forbidden[free].sum()),
            "without backbone": len(self._without_backbone),
        }
        return ", ".join(f"{count} {what}" for what, count in counts.items())

    def table(self) -> list[Row]:
        """Return a row for each column of the output: the author's name of the residue, and what happens to it."""
        labels, incomplete = self.structure.labels, set(self._without_backbone)
        rows = []
        for column, (i, variable) in enumerate(zip(self.output.tolist(), self.variable_of.tolist(), strict=True)):
            if variable >= 0:
                state = "tied" if len(self.variables[variable]) > 1 else "designed"
            else:
                state = "no backbone" if i in incomplete else "fixed"
            native = decode([int(self.structure.tokens[i])])
            rows.append(
                Row(str(labels[i]), column, labels[i].chain, native, state, variable if variable >= 0 else None)
            )
        return rows

    def expand(self, x: Tensor) -> Tensor:
        """Return the output sequences ``[n, R_out]`` of int64 values ``[n, V]`` of the free variables."""
        self._check_tokens(x, self.length, "x")
        sequences = self.native.expand(len(x), -1).clone()
        drawn = self.variable_of >= 0
        sequences[:, drawn] = x[:, self.variable_of[drawn]]
        return sequences

    def check(self, tokens: Tensor) -> None:
        """Compare finished sequences with the wishes.

        Args:
            tokens: int64 ``[n, R_out]``.

        Raises:
            ValueError: the length is wrong, a residue is undecided, a kept one changed, tied ones differ or an omitted
                amino acid is there.
        """
        self._check_tokens(tokens, len(self.output), "tokens")
        labels = [str(self.structure.labels[i]) for i in self.output.tolist()]

        def refuse(wrong: Tensor, what: str) -> None:
            if wrong.any():
                row, column = wrong.nonzero()[0].tolist()
                raise ValueError(f"tokens: sequence {row} {what} at {labels[column]} (column {column})")

        refuse((tokens < 0) | (tokens >= len(ALPHABET)), "has no amino acid")
        kept = self.variable_of < 0
        refuse((tokens != self.native) & kept, "changes a fixed residue")
        first = torch.tensor([variable[0] for variable in self.variables])[self.variable_of]
        column_of = torch.full((len(self.structure),), -1).index_put((self.output,), torch.arange(len(self.output)))
        refuse((tokens != tokens[:, column_of[first]]) & ~kept, "has another amino acid than its tied residues")
        allowed = self.bias[self.variable_of].gather(1, tokens.T).T
        refuse(allowed.isneginf() & ~kept, "holds an omitted amino acid")

    def to_string(self, tokens: Tensor, separator: str = "/") -> str:
        """Return the letters of one sequence ``[R_out]``, its chains separated as in ProteinMPNN's FASTA files."""
        self._check_tokens(tokens[None], len(self.output), "tokens")
        return separator.join(decode(chain) for chain in torch.split(tokens, list(self.chain_lengths)))

    @cached_property
    def _without_backbone(self) -> tuple[int, ...]:
        complete = self.structure.has_backbone[self.output].tolist()
        return tuple(i for i, whole in zip(self.output.tolist(), complete, strict=True) if not whole)

    def _check_tokens(self, tokens: Tensor, length: int, argument: str) -> None:
        if tokens.dtype != torch.int64 or tokens.dim() != 2 or tokens.shape[1] != length:
            got = f"{str(tokens.dtype).removeprefix('torch.')} {list(tokens.shape)}"
            raise ValueError(f"{argument}: expected int64 [n, {length}], got {got}")


def _designed_residues(structure: Structure, chains: str | Sequence[str] | None) -> list[int]:
    if chains is None:
        return list(range(len(structure)))
    named = [chain.strip() for chain in chains.split(",") if chain.strip()] if isinstance(chains, str) else list(chains)
    if not named:
        raise ValueError(f"chains: none given; {structure.name} has {', '.join(structure.chain_ids)}")
    return sorted({i for chain in named for i in structure.residues_of(chain)})


def _free_residues(
    structure: Structure, designed: Sequence[int], fix: str | Sequence[str] | None, redesign: str | Sequence[str] | None
) -> set[int]:
    if fix is not None and redesign is not None:
        raise ValueError("fix and redesign: give one of them, as each is the complement of the other")
    free = set(designed)
    if fix is not None:
        free -= set(parse_addresses(fix, structure, argument="fix"))
    if redesign is not None:
        named = parse_addresses(redesign, structure, argument="redesign")
        outside = [i for i in named if i not in free]
        if outside:
            label = structure.labels[outside[0]]
            raise ValueError(f"redesign: {label} is in chain {label.chain}, which is not designed; add it to chains")
        free = set(named)
    complete = structure.has_backbone
    free = {i for i in free if complete[i]}
    if not free:
        raise ValueError("nothing to design: every residue is kept; fix fewer residues, or name some in redesign")
    return free


def _variables(
    structure: Structure, designed: Sequence[int], free: set[int], sets: Iterable[tuple[int, ...]]
) -> tuple[tuple[int, ...], ...]:
    labels, tokens = structure.labels, structure.tokens.tolist()
    complete = structure.has_backbone
    inside = set(designed)
    single, variables = set(free), []
    for tied in sets:
        kept = [i for i in tied if i not in free]
        if not kept:
            variables.append(tied)
            single.difference_update(tied)
            continue
        drawn = [i for i in tied if i in free]
        if drawn:
            reason = "is fixed" if kept[0] in inside else "is in a chain that is not designed"
            if not complete[kept[0]]:
                reason = "lacks backbone atoms and cannot be designed"
            raise ValueError(
                f"tie: {labels[drawn[0]]} is tied to {labels[kept[0]]}, which {reason}; "
                f"fix {labels[drawn[0]]} as well or leave both out of the tie"
            )
        for other in kept:
            if tokens[other] != tokens[kept[0]]:
                natives = decode([tokens[kept[0]], tokens[other]])
                raise ValueError(
                    f"tie: {labels[kept[0]]} and {labels[other]} are both fixed, to {natives[0]} and {natives[1]}; "
                    "leave them out of the tie"
                )
    return tuple(sorted(variables + [(i,) for i in single]))


def _bias(structure: Structure, variables: Sequence[tuple[int, ...]], preferences: Iterable[Preference]) -> Tensor:
    by_residue = torch.zeros(len(structure), len(ALPHABET), dtype=torch.float64)
    for preference in preferences:
        residues = torch.arange(len(structure)) if preference.residues is None else torch.tensor(preference.residues)
        for amino_acid, amount in preference.amounts.items():
            by_residue[residues, amino_acid] += amount
    bias = torch.stack([by_residue[list(variable)].mean(dim=0) for variable in variables])
    impossible = bias.isneginf().all(dim=1).nonzero().flatten().tolist()
    if impossible:
        named = ", ".join(str(structure.labels[i]) for i in variables[impossible[0]])
        raise ValueError(f"omit: every amino acid is omitted at {named}; allow at least one")
    return bias.to(torch.float32)
