"""Addresses of residues as biologists write them: ``A10-25,B52A,C``.

An address is a chain (``C``), a residue (``A10``, with an insertion code ``A52B``, negative ``A-3``) or a range that
includes both ends (``A10-25``, ``A-5--2``, ``A52A-53``). Numbers and chain names are the author's, and case matters.
Where the structure has one chain its name may be left out (``10-25``). A colon may stand between chain and number, and
settles which is meant where chain names contain digits (``A1:0`` or ``A:10``). Commas or spaces separate addresses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fastguide.protein.structure import Structure

_NUMBER = r"(-?\d+)([A-Za-z]?)"


def parse_addresses(text: str | Sequence[str], structure: Structure, *, argument: str = "address") -> list[int]:
    """Return the indices of the residues that addresses select, in the order written, without repeats.

    Residues of a range are ordered by number, then insertion code: ``A10-52`` ends before ``A52A``.

    Args:
        text: addresses separated by commas or spaces, or a sequence of such strings.
        structure: what they refer to.
        argument: the name under which errors speak of the text (``fix``).

    Raises:
        ValueError: an address cannot be read, is ambiguous, or selects nothing.
    """
    written = [text] if isinstance(text, str) else list(text)
    addresses = [address for part in written for address in re.split(r"[,\s]+", part) if address]
    if not addresses:
        raise ValueError(f"{argument}: no address given; write residues such as {_example(structure)}")
    return list(dict.fromkeys(i for address in addresses for i in _parse(address, structure, argument)))


@dataclass(frozen=True)
class _Reading:
    """One way to read an address: a chain with a first and a last residue, or the whole chain where they are None."""

    chain: str
    rest: str
    first: tuple[int, str] | None = None
    last: tuple[int, str] | None = None

    def __str__(self) -> str:
        return f"{self.chain}:{self.rest}"

    @property
    def backwards(self) -> bool:
        return self.first is not None and self.last is not None and self.last < self.first

    def select(self, structure: Structure) -> tuple[int, ...]:
        residues = structure.residues_of(self.chain)
        if self.first is None or self.last is None:
            return tuple(residues)
        labels = structure.labels
        return tuple(i for i in residues if self.first <= (labels[i].number, labels[i].insertion) <= self.last)


def _parse(address: str, structure: Structure, argument: str) -> tuple[int, ...]:
    chains = structure.chain_ids
    candidates = [
        _read(chain, address.removeprefix(chain))
        for chain in sorted(chains, key=len, reverse=True)
        if chain and address.startswith(chain)
    ]
    if len(chains) == 1 and address != chains[0]:
        candidates.append(_read(chains[0], address))
    readings = [reading for reading in candidates if reading is not None]
    found = {reading.select(structure): reading for reading in readings}
    found.pop((), None)
    if len(found) == 1:
        return next(iter(found))
    if found:
        choices = " or ".join(str(reading) for reading in found.values())
        raise ValueError(f"{argument}: {address!r} is ambiguous, as a chain name contains digits; write {choices}")
    if any(reading.backwards for reading in readings):
        raise ValueError(f"{argument}: the range {address!r} runs backwards; write the smaller number first")
    if readings:
        raise ValueError(f"{argument}: {address!r} selects no residue; {_numbering(readings[0].chain, structure)}")
    named = ", ".join(chains)
    if any(chain and address.startswith(chain) for chain in chains) or not re.match(r"-?\w", address):
        raise ValueError(f"{argument}: cannot read {address!r}; write residues such as {_example(structure)}")
    if re.match(r"-?\d", address):
        raise ValueError(
            f"{argument}: {address!r} names no chain, and {structure.name} has {named}; write {chains[0]}{address}"
        )
    raise ValueError(f"{argument}: {address!r} names no chain of {structure.name}, which has {named} (case matters)")


def _read(chain: str, rest: str) -> _Reading | None:
    """Return what ``rest``, the text after a chain name, means in that chain; None where it means nothing."""
    rest = rest.removeprefix(":")
    if not rest:
        return _Reading(chain, rest)
    # A10-A25 repeats the chain; the name of chain 2 would be taken for a digit, so there it needs its colon.
    repeated = re.escape(chain) + (":" if chain[:1].isdigit() else ":?")
    match = re.fullmatch(rf"{_NUMBER}(?:-(?:{repeated})?{_NUMBER})?", rest)
    if match is None:
        return None
    number, code, last_number, last_code = match.groups()
    first = (int(number), code)
    return _Reading(chain, rest, first, first if last_number is None else (int(last_number), last_code))


def _numbering(chain: str, structure: Structure) -> str:
    residues = structure.residues_of(chain)
    first, last = (structure.labels[i] for i in (residues[0], residues[-1]))
    bounds = f"{first.number}{first.insertion} to {last.number}{last.insertion}"
    return f"chain {chain} of {structure.name} is numbered {bounds}"


def _example(structure: Structure) -> str:
    first = structure.labels[0]
    return f"{first}, {first}-{first.number + 9} or {first.chain or first.number}"
