"""What guided generation draws from and returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fastguide.guidance.protocol import Guidance
from fastguide.ops._checks import count
from fastguide.result import Result

_POPULATION = 32
"""Particles a prompt where one has a single child and learns from the others only, unless given."""


@dataclass
class GuidedOutput:
    """What is returned with ``return_dict_in_generate=True``.

    Attributes:
        sequences: ``[G * num_return_sequences, l]`` as without it.
        rewards: float64, of each.
        result: the weighted samples they were drawn from, without the padding of prompts; see `fastguide.Result`.
    """

    sequences: Tensor
    rewards: Tensor
    result: Result


def population(particles: int | None, rows: int, guidance: Guidance) -> int:
    """Return the number of particles a prompt."""
    if particles is not None:
        return count("particles", particles)
    return rows if guidance.branch > 1 else max(rows, _POPULATION)
