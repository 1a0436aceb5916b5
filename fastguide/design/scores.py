"""The numbers of a design: the reward and its parts, held-out scores, likelihoods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from fastguide.errors import BackendUnavailable
from fastguide.models import ProteinMPNN
from fastguide.protein import Design
from fastguide.report.data import Role
from fastguide.rewards import NLL, PLDDT, Constraint, ProtParam, Reward, Weighted
from fastguide.rewards.calls import RewardCalls

LABELS = {
    "plddt": "pLDDT V7",
    "plddt_v6": "pLDDT V6",
    "likelihood": "log-likelihood",
    "soluble": "soluble log-likelihood",
    "instability": "instability index",
    "isoelectric_point": "isoelectric point",
    "molecular_weight": "molecular weight",
    "gravy": "GRAVY",
    "charge": "charge at pH 7",
}
CALL_ROWS = 32


@dataclass(frozen=True)
class Column:
    """One number a sequence.

    Attributes:
        key: name in files. label: name in reports. unit: for axes.
        role: what the run knew of it. better: direction.
        evaluate: int64 tokens ``[n, R_out]`` to ``[n]``.
    """

    key: str
    label: str
    role: Role
    better: Literal["higher", "lower"] | None
    evaluate: Callable[[Tensor], Tensor]
    unit: str = ""


@dataclass
class Scores:
    """The columns of a run.

    Attributes:
        reward: what was optimised.
        columns: in the order of files and reports, the reward first.
        residues: per-residue negative log-likelihood ``[n, R_out]`` under the generating model.
        notes: what is left out, and why.
    """

    reward: Reward
    columns: list[Column]
    residues: Callable[[Tensor], Tensor]
    notes: list[str] = field(default_factory=list)


def make_scores(design: Design, model: ProteinMPNN, soluble: ProteinMPNN, reward: Reward, orders: int) -> Scores:
    """Return the reward and what is shown beside it.

    Held out, unless part of the reward: pLDDT by the other network, and the likelihood under the soluble weights.
    """
    terms = list(_terms(reward))
    parts = [part for _, part in terms]
    columns = [Column("reward", label_of(reward), "reward", "higher", _checked(reward))]
    if isinstance(reward, Weighted):
        columns += [
            Column(part.name, label_of(part), "part", "lower" if weight < 0 else "higher", _checked(part))
            for weight, part in terms
            if not isinstance(part, Constraint)
        ]
    notes: list[str] = []
    chains = design.chain_lengths
    versions = {part.version for part in parts if isinstance(part, PLDDT)}
    held_out = [version for version in ("V6", "V7") if version not in versions][: 1 if versions else 2]
    for version in held_out:
        try:
            network = PLDDT(version, chains=chains)
        except BackendUnavailable as error:
            notes.append(f"pLDDT {version} is left out: {error}")
            continue
        columns.append(Column(network.name, label_of(network), "held-out", "higher", _checked(network)))
    free = design.variable_of >= 0
    if not any(isinstance(part, NLL) and part.model is soluble for part in parts):
        likelihood = _mean_nll(soluble, free, orders)
        columns.append(Column("nll_soluble", "soluble NLL", "held-out", "lower", likelihood, "nats/residue"))
    columns.append(Column("nll", "NLL", "model", "lower", _mean_nll(model, free, orders), "nats/residue"))
    if not any(isinstance(part, ProtParam) and part.property_name == "instability_index" for part in parts):
        try:
            index = ProtParam("instability_index")
            columns.append(Column(index.name, "instability index", "information", "lower", _checked(index)))
        except BackendUnavailable as error:
            notes.append(f"the instability index is left out: {error}")
    return Scores(reward, columns, lambda tokens: model.nll(tokens, orders=orders), notes)


def label_of(reward: Reward) -> str:
    """Return the name of a reward as reports show it."""
    return LABELS.get(reward.name, reward.name)


def _terms(reward: Reward, factor: float = 1.0) -> Iterator[tuple[float, Reward]]:
    """Yield the rewards that a reward is a sum of, with their weights."""
    if isinstance(reward, Weighted):
        for weight, part in reward.terms:
            yield from _terms(part, factor * weight)
    else:
        yield factor, reward


def _checked(reward: Reward) -> Callable[[Tensor], Tensor]:
    return RewardCalls(reward, lambda tokens: tokens, CALL_ROWS)


def _mean_nll(model: ProteinMPNN, free: Tensor, orders: int) -> Callable[[Tensor], Tensor]:
    def evaluate(tokens: Tensor) -> Tensor:
        distinct, inverse = torch.unique(tokens, dim=0, return_inverse=True)
        return model.nll(distinct, orders=orders)[:, free].mean(dim=1).to(torch.float64)[inverse]

    return evaluate
