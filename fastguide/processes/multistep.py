"""A denoiser that remembers what it predicted in the step before, for samplers of second order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastguide.models.protocol import Denoiser, Prediction, State

if TYPE_CHECKING:
    from fastguide.processes.gaussian import GaussianProcess


class Multistep(Denoiser):
    """Returns ``[n, 2, *shape]``: the clean sample x̂0, and ``x̂0 + f (x̂0 − x̂0 of the step before)`` for the step.

    The clean sample of the step before is part of the particle's state, so it moves with it. Each prediction is still one call
    of the network.
    """

    def __init__(self, denoiser: Denoiser, process: GaussianProcess) -> None:
        self.denoiser, self.process = denoiser, process
        self.batch_invariant = denoiser.batch_invariant
        self.differentiable = denoiser.differentiable

    def init(self, n: int, condition: Any = None) -> State:
        """Return the inner state, and no clean sample yet."""
        return self.denoiser.init(n, condition), torch.zeros(n, *self.process.shape)

    def __call__(self, x: Tensor, t: Tensor, state: State = None, rows: Tensor | None = None) -> Prediction:
        """Predict both."""
        inner, before = state
        out = self.denoiser(x, t, inner, rows)
        # All rows of a call stand at one level, of which the host is told nothing.
        _, p, q, factor = self.process.numbers_on(x.device).index_select(0, self.process.step_of(t[:1]))[0].unbind()
        x0 = self.process.clipped(torch.where(p == 0.0, out.output.float() * q, x * p + out.output * q))
        before = before.to(x.device)
        change = x0 - (before if rows is None else before[rows])
        following = torch.where(factor == 0.0, x0, x0 + factor * change)
        return Prediction(torch.stack([x0, following], dim=1), (out.state, x0))

    def length_of(self, condition: Any = None) -> int | None:
        """As the denoiser inside says."""
        return self.denoiser.length_of(condition)

    def decode(self, x0: Tensor, condition: Any = None) -> Any:
        """As the denoiser inside does."""
        return self.denoiser.decode(x0, condition)
