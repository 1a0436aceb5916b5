"""Guidance algorithms, one a file: how children are weighed and selected. They know no model and no process."""

from fastguide.guidance.best_of_n import BestOfN
from fastguide.guidance.protocol import Guidance, State
from fastguide.guidance.smc import SMC
from fastguide.guidance.svdd import SVDD

__all__ = ["SMC", "SVDD", "BestOfN", "Guidance", "State"]
