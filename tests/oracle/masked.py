"""A masked diffusion small enough to enumerate: exact denoiser, kernel as run, soft values, target, normaliser, limit laws.

States are numbered in base V + 1 (the mask id V is a digit), clean samples in base V. The kernel of a step is a list of its
``(2V + 1)^L`` possible transitions, 531,441 at L = 6 and V = 4: a revealed position stays, a masked one takes any of V + 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import fastguide as fg
from tests.oracle.enumerable import DTYPE, Enumerable, Kernel, digits, noise_floor, total_variation

__all__ = ["DTYPE", "TabularMasked", "noise_floor", "total_variation"]


@dataclass
class TabularMasked(Enumerable):
    """The masked process over ``length`` positions and ``vocab`` tokens, with the exact denoiser of a joint table.

    ``log_joint`` and ``rewards`` are ``[V] * L`` tables, random ones where None. The law of the process as run is not the
    joint table: positions revealed in one step are drawn independently of each other, at the process's temperature, with
    ``bias`` ``[L, V]`` on the logits.
    """

    length: int = 3
    vocab: int = 3
    steps: int = 4
    temperature: float = 1.0
    seed: int = 0
    log_joint: Tensor | None = None
    rewards: Tensor | None = None
    bias: Tensor | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        shape = (self.vocab,) * self.length
        tables = [torch.randn(shape, generator=generator, dtype=DTYPE) for _ in range(2)]
        joint = tables[0] if self.log_joint is None else self.log_joint.to(DTYPE)
        self.log_joint = joint - joint.flatten().logsumexp(0)
        self.rewards = tables[1] if self.rewards is None else self.rewards.to(DTYPE)
        self.process = fg.MaskedProcess(
            length=self.length, vocab=self.vocab, steps=self.steps, temperature=self.temperature, **self.options
        )
        self.mask, self.base = self.vocab, self.vocab + 1
        self.states = digits(self.vocab + 1, self.length)
        self.clean = self.row(digits(self.vocab, self.length))
        self.logits_of = self._conditionals()

    def _conditionals(self) -> Tensor:
        """``[S, L, V]`` log p(token at l | revealed tokens of the state), whatever stands at l itself."""
        # A table over V + 1 digits, the mask meaning "summed over": every marginal of the joint is an entry of it.
        table = self.log_joint
        for axis in range(self.length):
            table = torch.cat([table, table.logsumexp(axis, keepdim=True)], dim=axis)
        table = table.flatten()
        rows = []
        for axis in range(self.length):
            unit = (self.vocab + 1) ** (self.length - 1 - axis)
            masked = self.row(self.states) + (self.mask - self.states[:, axis]) * unit
            entries = masked[:, None] + (torch.arange(self.vocab) - self.mask) * unit
            rows.append(torch.log_softmax(table[entries], dim=-1))
        return torch.stack(rows, dim=1)

    def denoiser(self, x: Tensor, t: Tensor) -> Tensor:
        return self.logits_of[self.row(x)].float()

    @cached_property
    def draws(self) -> Tensor:
        """``[S, L, V]`` probability of each token at a position that is being revealed, as run: temperature, top-k, top-p."""
        logits = self.logits_of.float().double()
        if self.bias is not None:
            logits = logits + self.bias
        draws = torch.softmax(logits / self.temperature, dim=-1)
        if self.process.top_k is not None:
            exceeded = (draws[..., None, :] > draws[..., :, None]).sum(-1)
            draws = draws * (exceeded < self.process.top_k)
        if self.process.top_p is not None:
            draws = draws / draws.sum(-1, keepdim=True)
            above = torch.where(draws[..., None, :] > draws[..., :, None], draws[..., None, :], 0.0).sum(-1)
            draws = draws * (above < self.process.top_p)
        return draws / draws.sum(-1, keepdim=True)

    @cached_property
    def _pairs(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Source, target, revealed positions, number of remasked ones and log-probability of the tokens, by transition."""
        v = self.vocab
        before = torch.cat([torch.arange(v), torch.full((v + 1,), v)])
        after = torch.cat([torch.arange(v), torch.arange(v + 1)])
        if any(self.process.remask_probabilities):
            before, after = torch.cat([before, torch.arange(v)]), torch.cat([after, torch.full((v,), v)])
        code = digits(len(before), self.length)
        x, y = before[code], after[code]
        source, revealed, remasked = self.row(x), (x == v) & (y < v), (x < v) & (y == v)
        token = y.clamp(max=v - 1)[..., None]
        log_draw = self.draws.log()[source].gather(2, token)[..., 0]
        return source, self.row(y), revealed, remasked.sum(1), torch.where(revealed, log_draw, 0.0).sum(1)

    def _reveal(self, step: int, source: Tensor, revealed: Tensor) -> Tensor:
        """Probability that the step reveals the positions ``revealed`` ``[n, L]`` of the states ``source``."""
        process, masks = self.process, self.states == self.mask
        masked, count = masks.sum(1)[source], revealed.sum(1)  # of positions that could be revealed, and that are
        if process.reveal != "count":
            p = process.reveal_probabilities[step]
            return (1.0 - p) ** (masked - count).to(DTYPE) * p ** count.to(DTYPE)
        wanted = int(process.reveal_counts(step, torch.tensor(self.length)))
        if process.order == "confidence":
            confidence = torch.where(masks, self.draws.amax(-1), -1.0)
            rank = confidence.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
            return (revealed == (masks & (rank < wanted))[source]).all(1).to(DTYPE)
        sets = torch.tensor([math.comb(n, min(n, wanted)) for n in range(self.length + 1)], dtype=DTYPE)
        return torch.where(count == masked.clamp(max=wanted), 1.0 / sets[masked], 0.0)

    def kernel(self, step: int) -> Kernel:
        """The kernel of a step: positions revealed (or remasked), and tokens drawn independently given x_t."""
        source, to, revealed, remasked, log_draw = self._pairs
        remask = self.process.remask_probabilities[step]
        held = (self.states < self.mask).sum(1)[source] - remasked
        kept = remask ** remasked.to(DTYPE) * (1.0 - remask) ** held.to(DTYPE)
        return Kernel(source, to, self._reveal(step, source, revealed) * kept * log_draw.exp())

    def start(self) -> Tensor:
        law = torch.zeros(len(self.states), dtype=DTYPE)
        law[-1] = 1.0
        return law

    def posterior_means(self) -> list[Tensor]:
        """``r(x̂0(x))`` after 0, 1, …, T steps, each ``[S]``: what `PosteriorMean` gives, and the reward at the end."""
        logits = self.logits_of.float() if self.bias is None else self.logits_of.float() + self.bias.float()
        guess = torch.where(self.states == self.mask, logits.argmax(-1), self.states)
        return [self.reward(guess)] * self.steps + [self.reward_table()]
