"""A model with no weights behind it: uniform logits, and a likelihood that counts alanines."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastguide.models import Denoiser, Prediction
from fastguide.protein import Design


class StubMPNN(Denoiser):
    """Stands in for `fastguide.models.ProteinMPNN`."""

    batch_invariant = True
    vocab = 20
    weights_hash = "0" * 64

    def __init__(self, design: Design, *, weights: Any = "v_48_020", soluble: bool = False) -> None:
        self.design = design
        self.length = design.length

    def __call__(self, x: Tensor, t: Tensor, state: Any = None, rows: Tensor | None = None) -> Prediction:
        return Prediction(self.design.bias.expand(len(x), -1, -1).contiguous())

    def decode(self, x: Tensor, condition: Any = None) -> Tensor:
        return self.design.expand(x)

    def nll(self, tokens: Tensor, *, orders: int = 1, seed: int = 0) -> Tensor:
        return torch.where(tokens == 0, 0.5, 2.0) * (self.design.variable_of >= 0)


def alanines(tokens: Tensor) -> Tensor:
    """A reward: how many residues are alanine."""
    return (tokens == 0).sum(dim=1).double()
