"""The rewards of an oracle as a reward that knows soft tokens."""

from __future__ import annotations

import torch

import fastguide as fg
from tests.oracle.enumerable import DTYPE, Enumerable


class Table(fg.rewards.Reward):
    """The rewards of an oracle, multilinear in a soft sample."""

    batch_invariant = True
    differentiable = True

    def __init__(self, oracle: Enumerable) -> None:
        self.oracle = oracle

    def __call__(self, x0):
        return self.oracle.reward(x0)

    def soft(self, x0):
        left = self.oracle.rewards.expand(len(x0), *self.oracle.rewards.shape)
        for weights in x0.to(DTYPE).unbind(1):
            left = torch.einsum("nv...,nv->n...", left, weights)
        return left
