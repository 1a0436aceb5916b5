"""Guidance algorithms, one a file: how children are weighed and selected. They know no model and no process."""

from fastguide.guidance.beam import Beam
from fastguide.guidance.best_of_n import BestOfN
from fastguide.guidance.classifier import ClassifierGuidance
from fastguide.guidance.nested_smc import NestedSMC
from fastguide.guidance.particle_gibbs import ParticleGibbs
from fastguide.guidance.pcn import PCN
from fastguide.guidance.protocol import Driver, Guidance, Proposal, State
from fastguide.guidance.refine import Refine
from fastguide.guidance.scheduled import Scheduled
from fastguide.guidance.smc import SMC
from fastguide.guidance.svdd import SVDD
from fastguide.guidance.tds import TDS
from fastguide.guidance.tree_search import TreeSearch

__all__ = [
    "PCN",
    "SMC",
    "SVDD",
    "TDS",
    "Beam",
    "BestOfN",
    "ClassifierGuidance",
    "Driver",
    "Guidance",
    "NestedSMC",
    "ParticleGibbs",
    "Proposal",
    "Refine",
    "Scheduled",
    "State",
    "TreeSearch",
]
