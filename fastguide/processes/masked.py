"""Masked (absorbing-state) discrete diffusion.

A state is a row of tokens, some of them the mask. Going from noise level t to s < t, each masked position is revealed
independently with probability ``(a(s) − a(t)) / (1 − a(t))``, where ``a`` is the expected revealed fraction, and a revealed
position draws its token from ``softmax(logits / temperature)``; the others stay (Austin et al., 2107.03006; Sahoo et al.,
2406.07524). ``a(0) = 1``, so the last step reveals everything. The pretrained law that guidance tilts is this process *as
run*: its temperature, its bias and the several positions of one step included.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from fastguide import ops
from fastguide.ops._checks import count

SCHEDULES: dict[str, Callable[[float], float]] = {
    "linear": lambda t: 1.0 - t,
    "cosine": lambda t: math.cos(math.pi * t / 2.0),
}
"""Expected revealed fraction ``a(t)``, from 0 at t = 1 (noise) to 1 at t = 0 (data)."""


@dataclass(frozen=True)
class MaskedProcess:
    """Masked diffusion over ``length`` positions and ``vocab`` real tokens.

    Args:
        length: positions L of a state (the longest group's, where groups differ).
        vocab: real tokens V; the mask id is ``vocab`` and is never a logit column.
        steps: reverse steps T; the noise levels are ``1, 1 − 1/T, …, 0``.
        schedule: ``"linear"``, ``"cosine"`` or a function ``a(t)``, decreasing, with ``a(1) = 0`` and ``a(0) = 1``.
        temperature: divides the logits (with the bias) of every draw; 0 draws the most probable token.
    """

    length: int
    vocab: int
    steps: int = 50
    schedule: str | Callable[[float], float] = "linear"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name in ("length", "vocab", "steps"):
            object.__setattr__(self, name, count(name, getattr(self, name)))
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature: expected a finite number of at least 0, got {self.temperature!r}")
        if isinstance(self.schedule, str) and self.schedule not in SCHEDULES:
            raise ValueError(
                f"schedule: unknown {self.schedule!r}; choose {', '.join(SCHEDULES)} or give a function a(t)"
            )
        if any(not 0.0 <= p <= 1.0 for p in self.reveal_probabilities):
            raise ValueError("schedule: a(t) must fall from 1 at t = 0 to 0 at t = 1 and never rise with t")

    @property
    def mask(self) -> int:
        """The mask id."""
        return self.vocab

    @cached_property
    def times(self) -> tuple[float, ...]:
        """The ``steps + 1`` noise levels, from 1 (noise) to 0 (data)."""
        return (*(1.0 - k / self.steps for k in range(self.steps)), 0.0)

    @cached_property
    def reveal_probabilities(self) -> tuple[float, ...]:
        """The probability that step k reveals a masked position; the last is exactly 1."""
        a = self.schedule if callable(self.schedule) else SCHEDULES[self.schedule]
        levels = [a(t) for t in self.times]
        steps = [(s - t) / (1.0 - t) if t < 1.0 else 1.0 for t, s in pairwise(levels[:-1])]
        return (*steps, 1.0)

    def prior(self, n: int, x_init: Tensor | None = None, device: torch.device | str = "cpu") -> Tensor:
        """Return ``[n, L]`` int64 states at t = 1: masks, except where ``x_init`` (``[L]`` or ``[n, L]``) has tokens."""
        if x_init is None:
            return torch.full((n, self.length), self.mask, dtype=torch.int64, device=device)
        if not isinstance(x_init, Tensor) or x_init.dtype != torch.int64:
            kind = x_init.dtype if isinstance(x_init, Tensor) else type(x_init).__name__
            raise TypeError(
                f"x_init: expected an int64 tensor of tokens, the mask id {self.mask} where free; got {kind}"
            )
        if x_init.shape not in ((self.length,), (n, self.length)):
            raise ValueError(
                f"x_init: expected shape [{self.length}] or [{n}, {self.length}], got {list(x_init.shape)}"
            )
        if x_init.numel() and (int(x_init.min()) < 0 or int(x_init.max()) > self.mask):
            raise ValueError(f"x_init: tokens must lie in 0..{self.mask} ({self.mask} is the mask)")
        return x_init.to(device).expand(n, self.length).clone()

    def propose(
        self,
        tokens: Tensor,
        logits: Tensor,
        *,
        step: int,
        seed: Tensor,
        ancestors: Tensor | None = None,
        branch: int = 1,
        slots: Tensor | None = None,
        bias: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Draw the children ``[P, M, L]`` of step ``step``; the arguments are those of `fastguide.ops.masked_step`."""
        return ops.masked_step(
            tokens,
            logits,
            reveal_probability=self.reveal_probabilities[step],
            temperature=self.temperature,
            bias=bias,
            ancestors=ancestors,
            branch=branch,
            seed=seed,
            step=step,
            slots=slots,
            lengths=lengths,
        )

    def mode(
        self, tokens: Tensor, logits: Tensor, *, bias: Tensor | None = None, lengths: Tensor | None = None
    ) -> Tensor:
        """Return the most probable clean sample ``[U, L]`` of each state, position by position.

        ``lengths`` ``[U]`` is the length of each state; what lies beyond stays as it is.
        """
        if lengths is None:
            return ops.masked_mode(tokens, logits, bias=bias)
        return ops.masked_mode(tokens, logits, bias=bias, seed=torch.zeros_like(lengths), lengths=lengths)
