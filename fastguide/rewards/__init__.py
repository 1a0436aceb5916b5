"""Rewards of clean samples: learnt, physical, a model's likelihood or any callable; their sums, and constraints."""

from fastguide.rewards.combine import Constraint, Weighted
from fastguide.rewards.constraints import composition_at_most, contains, forbids, max_run, net_charge
from fastguide.rewards.likelihood import NLL
from fastguide.rewards.plddt import PLDDT
from fastguide.rewards.properties import ProtParam
from fastguide.rewards.protocol import Reward, each, wrap
from fastguide.rewards.resolve import resolve
from fastguide.rewards.terms import Shaped, clipped, flat_bottom, linear

__all__ = [
    "NLL",
    "PLDDT",
    "Constraint",
    "ProtParam",
    "Reward",
    "Shaped",
    "Weighted",
    "clipped",
    "composition_at_most",
    "contains",
    "each",
    "flat_bottom",
    "forbids",
    "linear",
    "max_run",
    "net_charge",
    "resolve",
    "wrap",
]
