"""Masked (absorbing-state) discrete diffusion.

A state is a row of tokens, some of them the mask. Going from noise level t to s < t, each masked position is revealed
independently with probability ``(a(s) − a(t)) / (1 − a(t))``, where ``a`` is the expected revealed fraction, and a revealed
position draws its token from ``softmax(logits / temperature)``; the others stay (Austin et al., 2107.03006; Sahoo et al.,
2406.07524). ``a(0) = 1``, so the last step reveals everything. The pretrained law that guidance tilts is this process *as
run*: its temperature, truncation and bias, its order and the several positions of one step included.

Two options change which positions move:

- ``reveal="count"``: as many positions as the schedule says, not as many as chance has it. ``steps=length`` reveals one a
  step: the any-order autoregressive model (Hoogeboom et al., 2110.02037). ``order="confidence"`` takes those where the model
  is surest (Chang et al., 2202.04200), usually a better sample and a law with less entropy.
- ``remask``: tokens return to the mask, so that early choices can be mended (Wang et al., 2503.00307). With probability
  ``r = min(remask, (1 − a(s)) / a(t))`` each in the step from t to s; masks are then revealed with
  ``(a(s) − (1 − r) a(t)) / (1 − a(t))``, which leaves the expected revealed fraction ``a``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from fastguide import clock, ops
from fastguide.ops._checks import choice, count
from fastguide.processes.bound_masked import BoundMasked
from fastguide.processes.protocol import Constraints, initial_tokens

SCHEDULES: dict[str, Callable[[float], float]] = {
    "linear": lambda t: 1.0 - t,
    "cosine": lambda t: math.cos(math.pi * t / 2.0),
    "loglinear": lambda t: 1.0 - t,
}
"""Expected revealed fraction ``a(t)``, from 0 at t = 1 (noise) to 1 at t = 0 (data).

The log-linear noise of Lou et al. (2310.16834) and Sahoo et al., ``−log(1 − t)``, is linear in the fraction revealed: the
same schedule by the name under which models give it.
"""


@dataclass(frozen=True)
class MaskedProcess:
    """Masked diffusion over ``length`` positions and ``vocab`` real tokens.

    Args:
        length: positions L of a state (the longest group's, where groups differ).
        vocab: real tokens V; the mask id is ``vocab`` and is never a logit column.
        steps: reverse steps T; the noise levels are ``1, 1 − 1/T, …, 0``.
        schedule: ``"linear"``, ``"cosine"``, ``"loglinear"`` or a function ``a(t)``, decreasing, with ``a(1) = 0``
            and ``a(0) = 1``.
        temperature: divides the logits (with the bias) of every draw; 0 draws the most probable token.
        reveal: ``"independent"``, or ``"count"``: ``round(a(s) F) − round(a(t) F)`` positions in the step from t to s, F of
            them free at the start (the most of a group's particles, where ``x_init`` leaves them different numbers).
        order: of ``reveal="count"``: ``"random"``, or ``"confidence"``, the positions whose most probable token is the most
            probable (after temperature and truncation), the same for all children of a state.
        remask: in ``[0, 1]``, the probability at which a token returns to the mask in a step; never one that ``x_init`` gave.
        top_k: draw among so many most probable tokens (and the equals of the last one); all where None.
        top_p: draw among the most probable tokens that hold this share, in ``(0, 1]``, of the probability; all where None.
    """

    length: int
    vocab: int
    steps: int = 50
    schedule: str | Callable[[float], float] = "linear"
    temperature: float = 1.0
    reveal: str = "independent"
    order: str = "random"
    remask: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        for name in ("length", "vocab", "steps"):
            object.__setattr__(self, name, count(name, getattr(self, name)))
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature: expected a finite number of at least 0, got {self.temperature!r}")
        choice("reveal", self.reveal, ("independent", "count"))
        choice("order", self.order, ("random", "confidence"))
        if self.order != "random" and self.reveal != "count":
            raise ValueError(f'order: "{self.order}" ranks positions, which needs reveal="count", got "{self.reveal}"')
        if not 0.0 <= self.remask <= 1.0:
            raise ValueError(f"remask: expected a probability in [0, 1], got {self.remask!r}")
        if self.top_k is not None:
            object.__setattr__(self, "top_k", count("top_k", self.top_k))
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise ValueError(f"top_p: expected a number in (0, 1], got {self.top_p!r}")
        if isinstance(self.schedule, str) and self.schedule not in SCHEDULES:
            raise ValueError(
                f"schedule: unknown {self.schedule!r}; choose {', '.join(SCHEDULES)} or give a function a(t)"
            )
        if any(not 0.0 <= t <= s <= 1.0 for t, s in pairwise(self._levels)):
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
    def _levels(self) -> tuple[float, ...]:
        a = self.schedule if callable(self.schedule) else SCHEDULES[self.schedule]
        return (*(a(t) for t in self.times[:-1]), 1.0)

    @cached_property
    def remask_probabilities(self) -> tuple[float, ...]:
        """The probability that step k returns a token to the mask; in the last step 0."""
        if self.remask == 0:
            return (0.0,) * self.steps
        return tuple(min(self.remask, (1.0 - s) / t) if t > 0.0 else 0.0 for t, s in pairwise(self._levels))

    @cached_property
    def reveal_probabilities(self) -> tuple[float, ...]:
        """The probability that step k reveals a masked position; the last is exactly 1. A mean where counts decide."""
        steps = [
            min(1.0, (s - (1.0 - r) * t) / (1.0 - t)) if t < 1.0 else 1.0
            for (t, s), r in zip(pairwise(self._levels[:-1]), self.remask_probabilities, strict=False)
        ]
        return (*steps, 1.0)

    @cached_property
    def _levels_kept(self) -> tuple[float, ...]:
        """The level that step k starts from, without the tokens that it returns to the mask."""
        return tuple((1.0 - r) * t for r, t in zip(self.remask_probabilities, self._levels, strict=False))

    def reveal_counts(self, step: int, free: Tensor) -> Tensor:
        """Return how many positions step ``step`` reveals where ``free`` int64 positions were masked at the start.

        Tokens that return to the mask are made up for by their expected number. The last step reveals what is left.
        """
        if step == self.steps - 1:
            return free
        after, kept = clock.entry(self._levels, step + 1), clock.entry(self._levels_kept, step)
        n = free.double()
        return ((n * after).round() - (n * kept).round()).clamp(min=0).to(torch.int64)

    def share_kept(self, step: int) -> float:
        """Return ``a(t)`` after ``step`` steps: the probability that a position is not masked."""
        return self._levels[step]

    def bind(
        self, constraints: Constraints, *, groups: int, particles: int, seeds: Tensor, device: torch.device
    ) -> BoundMasked:
        """Return the process with the given tokens, lengths and bias of a run; the prior needs no randomness."""
        return BoundMasked(self, constraints, groups, particles, device)

    def prior(self, n: int, x_init: Tensor | None = None, device: torch.device | str = "cpu") -> Tensor:
        """Return ``[n, L]`` int64 states at t = 1: masks, except where ``x_init`` (``[L]`` or ``[n, L]``) has tokens."""
        return initial_tokens(x_init, n, self.length, self.mask, device)

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
        shift: Tensor | None = None,
        lengths: Tensor | None = None,
        free: Tensor | None = None,
        frozen: Tensor | None = None,
    ) -> Tensor:
        """Draw the children ``[P, M, L]`` of step ``step``; most arguments are those of `fastguide.ops.masked_step`.

        ``free`` ``[G]`` int64 is the number of positions that were masked at the start; all of a group's where None.
        ``frozen`` bool ``[L]`` marks the positions whose tokens were given.
        """
        counts = None
        if self.reveal == "count":
            if free is None:
                free = torch.full((len(seed),), self.length, device=tokens.device) if lengths is None else lengths
            counts = self.reveal_counts(step, free)
        return ops.masked_step(
            tokens,
            logits,
            reveal_probability=clock.entry(self.reveal_probabilities, step) if counts is None else None,
            reveal_count=counts,
            order=self.order,
            remask_probability=clock.entry(self.remask_probabilities, step) if self.remask > 0 else 0.0,
            frozen=frozen,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            bias=bias,
            shift=shift,
            ancestors=ancestors,
            branch=branch,
            seed=seed,
            step=clock.number(step),
            slots=slots,
            lengths=lengths,
        )

    def log_ratio(
        self,
        children: Tensor,
        tokens: Tensor,
        logits: Tensor,
        shift: Tensor,
        *,
        ancestors: Tensor | None = None,
        bias: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> Tensor:
        """Return ``log p/q`` ``[P, M]`` float64 of children proposed with ``shift``; see `fastguide.ops.masked_log_ratio`."""
        return ops.masked_log_ratio(
            tokens,
            children,
            logits,
            shift,
            temperature=self.temperature,
            top_k=self.top_k,
            top_p=self.top_p,
            bias=bias,
            ancestors=ancestors,
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
