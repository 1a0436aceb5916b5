"""Diffusion processes: the mathematics of one reverse step, with no network and no guidance in them."""

from fastguide.processes.autoregressive import AutoregressiveProcess
from fastguide.processes.discrete import DiscreteProcess, UniformProcess
from fastguide.processes.gaussian import GaussianProcess
from fastguide.processes.masked import MaskedProcess
from fastguide.processes.protocol import Bound, Constraints, Process

__all__ = [
    "AutoregressiveProcess",
    "Bound",
    "Constraints",
    "DiscreteProcess",
    "GaussianProcess",
    "MaskedProcess",
    "Process",
    "UniformProcess",
]
