"""A masked diffusion small enough to enumerate: exact denoiser, exact law as run, exact target and normaliser."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import fastguide as fg


@dataclass
class TabularMasked:
    """An arbitrary joint table over ``length`` positions and ``vocab`` tokens, and the masked process on it."""

    length: int = 3
    vocab: int = 3
    steps: int = 4
    temperature: float = 1.0
    seed: int = 0
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        self.log_joint = torch.randn((self.vocab,) * self.length, generator=generator, dtype=torch.float64)
        self.log_joint -= self.log_joint.logsumexp(dim=tuple(range(self.length)))
        self.rewards = torch.randn((self.vocab,) * self.length, generator=generator, dtype=torch.float64)
        self.process = fg.MaskedProcess(
            length=self.length, vocab=self.vocab, steps=self.steps, temperature=self.temperature, **self.options
        )
        self.states = list(itertools.product(range(self.vocab + 1), repeat=self.length))
        self.index = {state: i for i, state in enumerate(self.states)}
        self.logits_of = torch.stack([self._conditionals(state) for state in self.states])

    def _conditionals(self, state: tuple[int, ...]) -> Tensor:
        """``[L, V]`` log p(token at l | revealed tokens)."""
        rows = []
        for position in range(self.length):
            seen = tuple(
                slice(None) if token == self.vocab or i == position else token for i, token in enumerate(state)
            )
            left = self.log_joint[seen]
            axis = sum(1 for token in state[:position] if token == self.vocab)
            others = tuple(d for d in range(left.ndim) if d != axis)
            row = left.logsumexp(dim=others) if others else left
            rows.append(row - row.logsumexp(0))
        return torch.stack(rows)

    def row(self, x: Tensor) -> Tensor:
        """The number of each state ``[n, L]`` among all."""
        powers = (self.vocab + 1) ** torch.arange(self.length - 1, -1, -1)
        return (x * powers).sum(-1)

    def denoiser(self, x: Tensor, t: Tensor) -> Tensor:
        return self.logits_of[self.row(x)].float()

    def reward(self, x0: Tensor) -> Tensor:
        return self.rewards[tuple(x0.T)]

    def _draws(self) -> Tensor:
        """``[states, L, V]`` probabilities of the tokens of a revealed position: temperature, top-k, then top-p."""
        draws = torch.softmax(self.logits_of.float().double() / self.temperature, dim=-1)
        if self.process.top_k is not None:
            exceeded = (draws[..., None, :] > draws[..., :, None]).sum(-1)
            draws = draws * (exceeded < self.process.top_k)
        if self.process.top_p is not None:
            draws = draws / draws.sum(-1, keepdim=True)
            above = torch.where(draws[..., None, :] > draws[..., :, None], draws[..., None, :], 0.0).sum(-1)
            draws = draws * (above < self.process.top_p)
        return draws / draws.sum(-1, keepdim=True)

    def _reveals(self, step: int, masked: list[int], draws: Tensor) -> list[tuple[tuple[int, ...], float]]:
        """The sets of positions that a step may reveal, with their probabilities; ``draws`` ``[L, V]`` of the state."""
        process = self.process
        if process.reveal == "count":
            count = min(len(masked), int(process.reveal_counts(step, torch.tensor(self.length))))
            if process.order == "confidence":
                return [(tuple(sorted(masked, key=lambda at: (-float(draws[at].max()), at))[:count]), 1.0)]
            sets = list(itertools.combinations(masked, count))
            return [(chosen, 1.0 / len(sets)) for chosen in sets]
        p = process.reveal_probabilities[step]
        sets = [c for n in range(len(masked) + 1) for c in itertools.combinations(masked, n)]
        return [(chosen, p ** len(chosen) * (1.0 - p) ** (len(masked) - len(chosen))) for chosen in sets]

    def law(self) -> Tensor:
        """``[V^L]`` probabilities of clean samples under the process as run (several positions revealed in one step)."""
        probabilities = torch.zeros(len(self.states), dtype=torch.float64)
        probabilities[-1] = 1.0
        draws = self._draws()
        for step, remask in enumerate(self.process.remask_probabilities):
            following = torch.zeros_like(probabilities)
            for i, state in enumerate(self.states):
                if probabilities[i] == 0:
                    continue
                masked = [at for at, token in enumerate(state) if token == self.vocab]
                for revealed, chance in self._reveals(step, masked, draws[i]):
                    options = [
                        [(v, float(draws[i, at, v])) for v in range(self.vocab)]
                        if at in revealed
                        else [(token, 1.0)]
                        if token == self.vocab
                        else [(token, 1.0 - remask), (self.vocab, remask)]
                        for at, token in enumerate(state)
                    ]
                    for choice in itertools.product(*options):
                        weight = chance * math.prod(w for _, w in choice)
                        if weight:
                            following[self.index[tuple(v for v, _ in choice)]] += probabilities[i] * weight
            probabilities = following
        clean = [self.index[x] for x in itertools.product(range(self.vocab), repeat=self.length)]
        assert math.isclose(float(probabilities[clean].sum()), 1.0, abs_tol=1e-9)
        return probabilities[clean]

    def target(self, alpha: float) -> tuple[Tensor, float]:
        """``[V^L]`` probabilities of the tilted law, and ``log E_p[exp(r / alpha)]``."""
        weights = self.law().log() + self.rewards.flatten() / alpha
        log_z = float(weights.logsumexp(0))
        return (weights - log_z).exp(), log_z

    def frequencies(self, samples: Tensor, log_weights: Tensor) -> Tensor:
        """``[V^L]`` weighted frequencies of clean samples."""
        powers = self.vocab ** torch.arange(self.length - 1, -1, -1)
        weights = torch.softmax(log_weights, 0)
        table = torch.zeros(self.vocab**self.length, dtype=torch.float64)
        return table.index_add(0, (samples * powers).sum(-1), weights)


def total_variation(p: Tensor, q: Tensor) -> float:
    return 0.5 * float((p - q).abs().sum())
