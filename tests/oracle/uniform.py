"""A discrete diffusion without a mask, small enough to enumerate: exact denoiser at every level, kernel as run, target.

The noise is given as matrices, for uniform noise too, and Bayes' rule is written out over x0: nothing here is the closed form
that the process uses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

import fastguide as fg
from tests.oracle.enumerable import DTYPE, Enumerable, Kernel, digits


@dataclass
class TabularDiscrete(Enumerable):
    """Discrete diffusion over ``length`` positions and ``vocab`` tokens, with the exact denoiser of a joint table.

    Uniform noise with schedule ``a(t)``, or that of ``transitions`` ``[T, V, V]``. ``log_joint`` and ``rewards`` are
    ``[V] * L`` tables, random ones where None.
    """

    length: int = 3
    vocab: int = 3
    steps: int = 4
    seed: int = 0
    a: Any = None
    transitions: Tensor | None = None
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
        self.base = self.vocab
        self.states = digits(self.vocab, self.length)
        self.clean = torch.arange(len(self.states))
        self.process: Any
        if self.transitions is None:
            schedule = {} if self.a is None else {"schedule": self.a}
            self.process = fg.UniformProcess(self.length, self.vocab, self.steps, **schedule, **self.options)
            self.a = self.a or (lambda t: 1.0 - t)
            a = [self.a(1.0 - k / self.steps) for k in range(self.steps)] + [1.0]
            eye, even = (
                torch.eye(self.vocab, dtype=DTYPE),
                torch.full((self.vocab, self.vocab), 1 / self.vocab, dtype=DTYPE),
            )
            kept = [a[k] / a[k + 1] for k in range(self.steps)]
            self.transitions = torch.stack([k * eye + (1 - k) * even for k in reversed(kept)])
        else:
            self.process = fg.DiscreteProcess(self.length, self.transitions, **self.options)
            self.transitions, self.steps = self.transitions.to(DTYPE), len(self.transitions)
        to_level = [torch.eye(self.vocab, dtype=DTYPE)]
        for q in self.transitions:
            to_level.append(to_level[-1] @ q)
        self.to_level = torch.stack(to_level[::-1])
        """``[T + 1, V, V]`` from the data to the level before each step."""

    @cached_property
    def posteriors(self) -> Tensor:
        """``[T, S, L, V]`` p(x0 at l | x_t), exact."""
        joint = self.log_joint.exp().flatten()
        onehot = torch.nn.functional.one_hot(self.states, self.vocab).to(DTYPE)
        out = []
        for q in self.to_level[:-1]:
            reach = q[self.states[:, None, :], self.states[None, :, :]].prod(-1)  # [S x0, S x_t]
            p = (joint[:, None] * reach).T
            out.append(torch.einsum("ts,slv->tlv", p / p.sum(1, keepdim=True), onehot))
        return torch.stack(out)

    @cached_property
    def scores(self) -> Tensor:
        """``[T, S, L, V]`` p_t(x with y at l) / p_t(x), exact."""
        joint, out = self.log_joint.exp().flatten(), []
        for q in self.to_level[:-1]:
            law = joint @ q[self.states[:, None, :], self.states[None, :, :]].prod(-1)
            rows = []
            for axis in range(self.length):
                unit = self.vocab ** (self.length - 1 - axis)
                others = self.clean - self.states[:, axis] * unit
                rows.append(law[others[:, None] + torch.arange(self.vocab) * unit] / law[:, None])
            out.append(torch.stack(rows, 1))
        return torch.stack(out)

    def denoiser(self, x: Tensor, t: Tensor) -> Tensor:
        table = self.scores if self.process.prediction == "score" else self.posteriors
        step = round((1.0 - float(t[0])) * self.steps)
        return table[step][self.row(x)].log().float()

    @cached_property
    def clean_laws(self) -> Tensor:
        """``[T, S, L, V]`` p(x0 at l | x_t) as run: bias, temperature, truncation."""
        logits = self.posteriors.log().float().to(DTYPE)
        if self.bias is not None:
            logits = logits + self.bias
        p = torch.softmax(logits / self.process.temperature, -1)
        if self.process.top_k is not None:
            exceeded = (p[..., None, :] > p[..., :, None]).sum(-1)
            p = p * (exceeded < self.process.top_k)
        return p / p.sum(-1, keepdim=True)

    def start(self) -> Tensor:
        prior = torch.full((self.vocab,), 1 / self.vocab, dtype=DTYPE)
        if isinstance(self.process, fg.DiscreteProcess):
            prior = prior @ self.to_level[0]
        return prior[self.states].prod(1)

    def positions(self, step: int) -> Tensor:
        """``[S, L, V]`` p(x_s at l | x_t), by Bayes' rule for every x0."""
        to_s, back = self.to_level[step + 1], self.transitions[self.steps - 1 - step]
        if self.process.prediction == "score" and self.process.sampler == "tau_leaping" and step + 1 < self.steps:
            a = [self.a(1.0 - k / self.steps) for k in (step, step + 1)]
            rates = self.scores[step] * math.log(a[1] / a[0]) / self.vocab
            own = self.states[..., None]
            rates = rates.scatter(-1, own, 0.0)
            return rates.scatter(-1, own, 1.0 - rates.sum(-1, keepdim=True))
        x = self.states
        # [S, L, x0, y] ∝ q(y | x0) q(x_t | y), and summed over x0.
        joint = to_s * back[:, x].permute(1, 2, 0)[:, :, None, :]
        return torch.einsum("slx,slxy->sly", self.clean_laws[step], joint / joint.sum(-1, keepdim=True))

    def kernel(self, step: int) -> Kernel:
        p = self.positions(step)
        source, to = torch.cartesian_prod(self.clean, self.clean).T
        probability = p[source].gather(2, self.states[to][..., None])[..., 0].prod(1)
        return Kernel(source, to, probability)

    def posterior_means(self) -> list[Tensor]:
        """``r(x̂0(x))`` after 0, 1, …, T steps, each ``[S]``: what `PosteriorMean` gives, and the reward at the end."""
        logits = self.posteriors.log().float()
        if self.bias is not None:
            logits = logits + self.bias.float()
        return [self.reward(guess) for guess in logits.argmax(-1)] + [self.reward_table()]


def random_transitions(steps: int, vocab: int, seed: int = 0) -> Tensor:
    """``[T, V, V]`` float64 matrices that keep about half."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(steps, vocab, vocab, generator=generator, dtype=DTYPE)
    return 0.5 * torch.eye(vocab, dtype=DTYPE) + 0.5 * noise / noise.sum(-1, keepdim=True)
