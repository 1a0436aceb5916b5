"""The network behind learned values, and how it is fitted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastguide.memory import fixed_batches

_CAP = 3.0
"""Where the exponential of the soft loss goes on as its tangent: a value that starts far off must not blow up the gradient."""


class Fit(NamedTuple):
    """How a fit went.

    Attributes:
        loss: mean loss of each epoch on the trajectories it was fitted to. held_out: on those left out.
        spread: standard deviation of the rewards, for scale.
    """

    loss: tuple[float, ...]
    held_out: tuple[float, ...]
    spread: float


class ValueNetwork(nn.Module):
    """A two-layer network of one-hot tokens or real states, and the time, to one number; rewards are standardised inside.

    Args:
        shape: of a state, ``(L,)`` for tokens.
        vocab: tokens, the mask included; None for real states.
        width: of both hidden layers.
    """

    def __init__(self, shape: tuple[int, ...], vocab: int | None, width: int = 128) -> None:
        super().__init__()
        self.vocab = vocab
        inputs = math.prod(shape) * (vocab or 1) + 1
        self.body = nn.Sequential(
            nn.Linear(inputs, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 1)
        )

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Return ``[n]`` for states ``[n, *shape]`` at noise levels ``[n]``."""
        rows = x if self.vocab is None else nn.functional.one_hot(x, self.vocab)
        found: Tensor = self.body(torch.cat([rows.flatten(1).float(), t[:, None]], 1))[:, 0]
        return found


def soft_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the mean of ``e^u − u − 1`` with ``u = target − predicted``, in units of alpha.

    It is least where ``exp(predicted) = E[exp(target) | x]``: the soft value, without the exponential of a network's output
    (Varian's LINEX loss). Beyond ``u = 3`` it goes on as its tangent.
    """
    u = target - predicted
    capped = u.clamp(max=_CAP)
    return (capped.exp() + (u - capped) * math.exp(_CAP) - u - 1.0).mean()


def squared_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error, least at the mean."""
    return ((target - predicted) ** 2).mean()


def train(
    network: nn.Module,
    batches: Callable[[torch.Generator], list[Tensor]],
    loss_of: Callable[[Tensor], Tensor],
    held_out: Callable[[], Tensor],
    *,
    epochs: int,
    rate: float,
    generator: torch.Generator,
    after_epoch: Callable[[], None] | None = None,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Fit by Adam with a rate that falls to 0; return the losses of the epochs, and those held out."""
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    losses, left_out = [], []
    with torch.enable_grad():
        for epoch in range(epochs):
            for group in optimizer.param_groups:
                group["lr"] = rate * 0.5 * (1.0 + math.cos(math.pi * epoch / epochs))
            total, count = 0.0, 0
            for rows in batches(generator):
                loss = loss_of(rows)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                total, count = total + float(loss.detach()) * len(rows), count + len(rows)
            losses.append(total / max(1, count))
            with torch.no_grad():
                left_out.append(float(held_out()))
            if after_epoch is not None:
                after_epoch()
    return tuple(losses), tuple(left_out)


def in_fixed_calls(network: nn.Module, x: Tensor, t: float, rows: int = 64) -> Tensor:
    """Return ``[n]`` float64, the network called with ``rows`` rows at a time: a row's bits must not depend on the others."""
    times = torch.full((rows,), t, device=x.device)
    parts = [network(x[index], times)[:real] for index, real in fixed_batches(len(x), rows, x.device)]
    return torch.cat(parts).double()
