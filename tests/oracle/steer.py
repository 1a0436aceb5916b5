"""A loop of one's own around `fastguide.Steering`, in which the values can be anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

import fastguide as fg
from fastguide.guidance import Guidance
from fastguide.processes import Constraints
from tests.oracle.enumerable import DTYPE, Enumerable

Value = Callable[[Tensor, int], Tensor]
"""``(x [n, L], steps taken) -> [n]``."""


class Steered(NamedTuple):
    samples: Tensor
    steering: fg.Steering
    ess: Tensor
    """``[T, G]`` effective sample size after every step."""


def steer(
    oracle: Enumerable,
    guidance: Guidance,
    value: Value,
    *,
    particles: int,
    groups: int = 1,
    seed: int = 0,
) -> Steered:
    s = fg.Steering(guidance, particles=particles, groups=groups, seed=seed)
    device = torch.device("cpu")
    bound = oracle.process.bind(Constraints(), groups=groups, particles=particles, seeds=s.seeds, device=device)
    x, everyone = bound.x, torch.arange(groups * particles)
    ess = []
    s.begin(value(x, 0))
    for step in range(oracle.steps):
        t = torch.full((len(x),), oracle.process.times[step])
        children = bound.propose(
            x,
            oracle.denoiser(x, t),
            step=step,
            group=torch.arange(groups),
            seed=s.seeds,
            ancestors=everyone,
            branch=s.branch,
        )
        x = children.flatten(0, 1)
        if step + 1 < oracle.steps:
            s.weigh(value(x, step + 1))
        else:
            s.finish(oracle.reward(x))
        s.select()
        x = s.move(x)
        ess.append(s.state.ess)
    return Steered(x, s, torch.stack(ess))


def read(oracle: Enumerable, tables: list[Tensor]) -> Value:
    """Values from a table of every state, one a step."""
    return lambda x, step: tables[step][oracle.row(x)]


def wrong(spread: float, seed: int = 0) -> Value:
    """Values that have nothing to do with the state: fresh normal numbers for every particle, every time."""
    generator = torch.Generator().manual_seed(seed)
    return lambda x, step: spread * torch.randn(len(x), generator=generator, dtype=DTYPE)
