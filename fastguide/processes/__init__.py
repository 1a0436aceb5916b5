"""Diffusion processes: the mathematics of one reverse step, with no network and no guidance in them."""

from fastguide.processes.masked import MaskedProcess
from fastguide.processes.protocol import Bound, Constraints, Process

__all__ = ["Bound", "Constraints", "MaskedProcess", "Process"]
