"""Ready-made constraints on protein sequences: 0 where they hold, ``-inf`` where they do not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fastguide.protein.alphabet import ALPHABET, decode, letters
from fastguide.rewards.combine import Constraint
from fastguide.rewards.tokens import check_chains, check_tokens, split_chains

POSITIVE = "KR"
NEGATIVE = "DE"


def max_run(k: int, *, chains: Sequence[int] | None = None) -> Constraint:
    """Require that no amino acid stands more than ``k`` times in a row; runs end where ``chains`` do."""
    if k < 1:
        raise ValueError(f"k: expected 1 or more, got {k}")
    name = f"max_run({k})"
    lengths = check_chains(chains, name)

    def holds(x0: Any) -> Tensor:
        tokens = check_tokens(x0, name)
        result = torch.ones(len(tokens), dtype=torch.bool, device=tokens.device)
        for chain in split_chains(tokens, lengths, name):
            if chain.shape[1] > k:
                windows = chain.unfold(1, k + 1, 1)
                result &= ~(windows == windows[..., :1]).all(dim=2).any(dim=1)
        return result

    return Constraint(holds, name=name)


def composition_at_most(amino_acids: str, fraction: float) -> Constraint:
    """Require that the given amino acids together make up at most ``fraction`` (0 to 1) of the sequence."""
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction: expected 0 to 1, got {fraction}")
    name = f"composition_at_most({amino_acids}, {fraction:g})"
    letters(amino_acids, "amino_acids")

    def holds(x0: Any) -> Tensor:
        tokens = check_tokens(x0, name)
        return _membership(amino_acids, tokens.device)[tokens].sum(dim=1) <= fraction * tokens.shape[1]

    return Constraint(holds, name=name)


def net_charge(low: float, high: float) -> Constraint:
    """Require a net charge between ``low`` and ``high``, both included: the number of K and R less that of D and E."""
    if not low <= high:
        raise ValueError(f"low, high: expected low <= high, got {low} and {high}")
    name = f"net_charge({low:g}, {high:g})"

    def holds(x0: Any) -> Tensor:
        tokens = check_tokens(x0, name)
        charges = _membership(POSITIVE, tokens.device) - _membership(NEGATIVE, tokens.device)
        charge = charges[tokens].sum(dim=1)
        return (charge >= low) & (charge <= high)

    return Constraint(holds, name=name)


def contains(pattern: str, *, chains: Sequence[int] | None = None) -> Constraint:
    """Require that a regular expression matches somewhere; no match spans two of ``chains``."""
    return _motif(pattern, chains, f"contains({pattern})", wanted=True)


def forbids(pattern: str, *, chains: Sequence[int] | None = None) -> Constraint:
    """Require that a regular expression (``"N[^P][ST]"``: glycosylation sites) matches nowhere in any of ``chains``."""
    return _motif(pattern, chains, f"forbids({pattern})", wanted=False)


def _motif(pattern: str, chains: Sequence[int] | None, name: str, *, wanted: bool) -> Constraint:
    try:
        motif = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"pattern: {pattern!r} is no regular expression: {error}") from error
    if not pattern:
        raise ValueError("pattern: empty, and so found everywhere; write letters such as N[^P][ST]")
    lengths = check_chains(chains, name)

    def holds(x0: Any) -> Tensor:
        tokens = check_tokens(x0, name)
        found = [
            any(motif.search(decode(chain)) for chain in row)
            for row in zip(*(chain.tolist() for chain in split_chains(tokens, lengths, name)), strict=True)
        ]
        return torch.tensor(found, dtype=torch.bool, device=tokens.device) == wanted

    constraint = Constraint(holds, name=name)
    constraint.device = torch.device("cpu")  # where words are searched
    return constraint


@lru_cache(maxsize=64)
def _membership(amino_acids: str, device: torch.device) -> Tensor:
    """Return int64 ``[20]``, 1 for the given amino acids; it is kept, as a copy to a GPU waits for it."""
    members = torch.zeros(len(ALPHABET), dtype=torch.int64)
    members[letters(amino_acids, "amino_acids")] = 1
    return members.to(device)
