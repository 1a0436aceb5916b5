"""Physical and chemical properties of a sequence, through Biopython's ProtParam."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastguide.errors import BackendUnavailable
from fastguide.protein.alphabet import decode
from fastguide.rewards.protocol import Reward
from fastguide.rewards.tokens import check_tokens

PROPERTIES: dict[str, Callable[[Any], float]] = {
    "isoelectric_point": lambda protein: protein.isoelectric_point(),
    "instability_index": lambda protein: protein.instability_index(),
    "gravy": lambda protein: protein.gravy(),
    "molecular_weight": lambda protein: protein.molecular_weight(),
    "aromaticity": lambda protein: protein.aromaticity(),
    "charge_at_pH7": lambda protein: protein.charge_at_pH(7.0),
}


class ProtParam(Reward):
    """A property of the sequence as a whole, all its columns taken as one chain.

    - ``isoelectric_point``: pH at which the net charge vanishes.
    - ``instability_index``: Guruprasad's, without unit; above 40 counts as unstable.
    - ``gravy``: mean Kyte-Doolittle hydropathy, positive is hydrophobic.
    - ``molecular_weight``: Da.
    - ``aromaticity``: fraction of F, W and Y.
    - ``charge_at_pH7``: elementary charges.

    The reward is the property itself (use a negative weight to lower it), or with ``target`` minus its distance from
    there, at most 0.

    Args:
        property_name: one of the above.
        target: the wanted value, in the property's unit.
        name: column name, by default that of the property.

    Raises:
        ValueError: there is no such property, or the target is not finite.
        BackendUnavailable: Biopython is not installed.
    """

    batch_invariant = True
    device = torch.device("cpu")

    def __init__(self, property_name: str, *, target: float | None = None, name: str | None = None) -> None:
        if property_name not in PROPERTIES:
            raise ValueError(f"property_name: {property_name!r} is none of {', '.join(PROPERTIES)}")
        if target is not None and not math.isfinite(target):
            raise ValueError(f"target: expected a finite number, got {target}")
        try:
            from Bio.SeqUtils.ProtParam import ProteinAnalysis
        except ImportError as error:
            raise BackendUnavailable(
                f'the reward {property_name} needs Biopython, which is not installed: pip install "fastguide[protein]"'
            ) from error
        self.property_name = property_name
        self.target = target
        self.name = name or (property_name if target is None else f"{property_name}@{target:g}")
        self._analyse: Callable[[str], Any] = ProteinAnalysis

    def __call__(self, x0: Any) -> Tensor:
        """Return float64 ``[n]`` of int64 tokens ``[n, L]``."""
        measure = PROPERTIES[self.property_name]
        rows = check_tokens(x0, self.name).tolist()
        values = torch.tensor([measure(self._analyse(decode(row))) for row in rows], dtype=torch.float64)
        return (values if self.target is None else -(values - self.target).abs()).to(x0.device)
