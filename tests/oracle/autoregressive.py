"""A hidden Markov model that writes from left to right, small enough to enumerate.

States are numbered in base V + 1 (the id V stands where nothing is written). The model knows the end token as any other; the
process ends a sequence there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import fastguide as fg
from tests.oracle.enumerable import DTYPE, Enumerable, Kernel, digits

HIDDEN = 3


@dataclass
class HiddenMarkov(Enumerable):
    """Sequences of ``length`` tokens out of ``vocab``, emitted by a random hidden chain of three states.

    ``eos`` ends a sequence, ``pad`` fills it. ``rewards`` is a ``[V] * L`` table, a random one where None.
    """

    length: int = 3
    vocab: int = 3
    eos: int | None = 2
    pad: int = 0
    seed: int = 0
    rewards: Tensor | None = None
    bias: Tensor | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)

        def law(*shape: int) -> Tensor:
            return torch.softmax(torch.randn(shape, generator=generator, dtype=DTYPE), -1)

        self.initial, self.chain, self.emission = law(HIDDEN), law(HIDDEN, HIDDEN), law(HIDDEN, self.vocab)
        table = torch.randn((self.vocab,) * self.length, generator=generator, dtype=DTYPE)
        self.rewards = table if self.rewards is None else self.rewards.to(DTYPE)
        self.process = fg.AutoregressiveProcess(self.length, self.vocab, eos=self.eos, pad=self.pad, **self.options)
        self.steps, self.mask, self.base = self.process.steps, self.vocab, self.vocab + 1
        self.states = digits(self.base, self.length)
        self.clean = self.row(digits(self.vocab, self.length))

    @cached_property
    def logits_of(self) -> Tensor:
        """``[S, V]`` log p(next token | prefix), by the forward algorithm; prefixes end at the first unwritten position."""
        rows = []
        for x in self.states.tolist():
            belief = self.initial
            for token in x[: x.index(self.mask)] if self.mask in x else []:
                belief = belief * self.emission[:, token]
                belief = (belief / belief.sum()) @ self.chain
            rows.append((belief @ self.emission).log())
        return torch.stack(rows)

    def denoiser(self, x: Tensor, t: Tensor) -> Tensor:
        return self.logits_of[self.row(x)].float()

    def start(self) -> Tensor:
        law = torch.zeros(len(self.states), dtype=DTYPE)
        law[-1] = 1.0
        return law

    @cached_property
    def _kernel(self) -> Kernel:
        logits = self.logits_of.float().to(DTYPE)
        transitions = []
        for number, x in enumerate(self.states.tolist()):
            if self.mask not in x:
                transitions.append((number, number, 1.0))
                continue
            at = x.index(self.mask)
            row = logits[number] if self.bias is None else logits[number] + self.bias[at]
            p = torch.softmax(row / self.process.temperature, -1)
            if self.process.top_k is not None:
                p = p * ((p[None] > p[:, None]).sum(1) < self.process.top_k)
            for token, chance in enumerate((p / p.sum()).tolist()):
                rest = [self.pad if token == self.eos else self.mask] * (self.length - at - 1)
                transitions.append((number, int(self.row(torch.tensor([*x[:at], token, *rest]))), chance))
        source, to, probability = zip(*transitions, strict=True)
        return Kernel(torch.tensor(source), torch.tensor(to), torch.tensor(probability, dtype=DTYPE))

    def kernel(self, step: int) -> Kernel:
        return self._kernel

    def posterior_means(self) -> list[Tensor]:
        """The reward of the padded prefix after 0, 1, …, T steps, each ``[S]``, and the reward at the end."""
        padded = torch.where(self.states == self.mask, self.pad, self.states)
        return [self.reward(padded)] * self.steps + [self.reward_table()]
