"""Reward-guided generation from pretrained diffusion models at inference time.

Three levels, each built on the one below: `sample` (the whole loop), `Steering` (the step object for people who own their
loop) and `fastguide.ops` (the kernels).
"""

from fastguide import guidance, models, ops, processes, rewards, values
from fastguide.budget import Budget
from fastguide.calibration import Calibration, calibrate
from fastguide.compare import Comparison, compare
from fastguide.config import backend
from fastguide.distill import Distill
from fastguide.errors import BackendUnavailable, DegenerateWeights, RewardError
from fastguide.export import load
from fastguide.guidance import (
    PCN,
    SMC,
    SVDD,
    TDS,
    Beam,
    BestOfN,
    ClassifierGuidance,
    NestedSMC,
    ParticleGibbs,
    Refine,
    Scheduled,
    TreeSearch,
)
from fastguide.memory import Memory
from fastguide.processes import AutoregressiveProcess, DiscreteProcess, GaussianProcess, MaskedProcess, UniformProcess
from fastguide.result import LogNormalizer, Result
from fastguide.sample import sample
from fastguide.steering import Steering
from fastguide.strength import AutoAlpha
from fastguide.values import MonteCarlo, PosteriorMean, Regression, SoftQ
from fastguide.values.compiled import value

__version__ = "0.1.0"

__all__ = [
    "PCN",
    "SMC",
    "SVDD",
    "TDS",
    "AutoAlpha",
    "AutoregressiveProcess",
    "BackendUnavailable",
    "Beam",
    "BestOfN",
    "Budget",
    "Calibration",
    "ClassifierGuidance",
    "Comparison",
    "DegenerateWeights",
    "DiscreteProcess",
    "Distill",
    "GaussianProcess",
    "LogNormalizer",
    "MaskedProcess",
    "Memory",
    "MonteCarlo",
    "NestedSMC",
    "ParticleGibbs",
    "PosteriorMean",
    "Refine",
    "Regression",
    "Result",
    "RewardError",
    "Scheduled",
    "SoftQ",
    "Steering",
    "TreeSearch",
    "UniformProcess",
    "backend",
    "calibrate",
    "compare",
    "guidance",
    "load",
    "models",
    "ops",
    "processes",
    "rewards",
    "sample",
    "value",
    "values",
]
