"""A process whose states can all be listed: laws, soft values, target and normaliser from its kernels alone."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

DTYPE = torch.float64


class Kernel(NamedTuple):
    """Transitions of one step: ``probability[i]`` of going from state ``source[i]`` to state ``to[i]``."""

    source: Tensor
    to: Tensor
    probability: Tensor


class Enumerable:
    """Base of the oracles; a subclass gives the attributes, ``start`` and ``kernel``.

    Attributes:
        process: what is run; ``steps`` of it.
        base: states are numbered in it, digit by digit. states: ``[S, L]``, in order of their numbers.
        clean: ``[V^L]`` the numbers of the clean samples. rewards: their ``[V] * L`` table.
    """

    process: Any
    length: int
    vocab: int
    steps: int
    base: int
    states: Tensor
    clean: Tensor
    rewards: Tensor

    def start(self) -> Tensor:
        """``[S]`` the law of noise."""
        raise NotImplementedError

    def kernel(self, step: int) -> Kernel:
        """The transitions of a step."""
        raise NotImplementedError

    def row(self, x: Tensor) -> Tensor:
        """The number of each state ``[..., L]`` among all."""
        return (x * self.base ** torch.arange(self.length - 1, -1, -1)).sum(-1)

    def reward(self, x0: Tensor) -> Tensor:
        return self.rewards[tuple(x0.T)]

    def push(self, law: Tensor, step: int) -> Tensor:
        """The law ``[S]`` after a step of states that follow ``law`` before it."""
        k = self.kernel(step)
        return torch.zeros_like(law).index_add(0, k.to, law[k.source] * k.probability)

    def expect(self, f: Tensor, step: int) -> Tensor:
        """``[S]`` ``E[f(x after the step) | x before it]``; where the transition is impossible f is not read."""
        k = self.kernel(step)
        terms = torch.where(k.probability > 0, k.probability * f[k.to], 0.0)
        return torch.zeros_like(f).index_add(0, k.source, terms)

    def law(self) -> Tensor:
        """``[V^L]`` probabilities of clean samples under the process as run."""
        law = self.start()
        for step in range(self.steps):
            law = self.push(law, step)
        assert math.isclose(float(law[self.clean].sum()), 1.0, abs_tol=1e-9)
        return law[self.clean]

    def target(self, alpha: float) -> tuple[Tensor, float]:
        """``[V^L]`` probabilities of the tilted law, and ``log E_p[exp(r / alpha)]``."""
        weights = self.law().log() + self.rewards.flatten() / alpha
        log_z = float(weights.logsumexp(0))
        return (weights - log_z).exp(), log_z

    def reward_table(self) -> Tensor:
        """``[S]`` the reward of clean states; −inf, which nothing reads, elsewhere."""
        table = torch.full((len(self.states),), -torch.inf, dtype=DTYPE)
        table[self.clean] = self.rewards.flatten()
        return table

    def soft_values(self, alpha: float) -> list[Tensor]:
        """Exact ``v`` after 0, 1, …, T steps, each ``[S]``; −inf at states that cannot be completed in time."""
        values = [self.reward_table()]
        for step in reversed(range(self.steps)):
            high = values[0].max()
            values.insert(0, high + alpha * self.expect(((values[0] - high) / alpha).exp(), step).log())
        return values

    def svdd_law(self, values: list[Tensor], branch: int, alpha: float) -> Tensor:
        """``[V^L]`` law of SVDD's samples (Beam's with one survivor a parent at alpha = 0), for any number of particles.

        The best of M children falls in the class c of equal values with probability ``F(c)^M − F(c−)^M``. For alpha > 0,
        with weights w and ``1 / s = ∫ exp(−s u) du``,
        ``P(x') = M K(x') w(x') ∫ exp(−u w(x')) (Σ_y K(y) exp(−u w(y)))^(M−1) du``.
        """
        law = self.start()
        for step in range(self.steps):
            k, v = self.kernel(step), values[step + 1]
            following = torch.zeros_like(law)
            for state in (law > 0).nonzero()[:, 0]:
                own = (k.source == state) & (k.probability > 0)
                p, v_to = k.probability[own], v[k.to[own]]
                chosen = p * (_best_of(p, v_to, branch) if alpha == 0 else _one_of(p, v_to / alpha, branch))
                following.index_add_(0, k.to[own], law[state] * chosen)
            law = following
        return law[self.clean]

    def frequencies(self, samples: Tensor, log_weights: Tensor) -> Tensor:
        """``[V^L]`` weighted frequencies of clean samples."""
        powers = self.vocab ** torch.arange(self.length - 1, -1, -1)
        weights = torch.softmax(log_weights, 0)
        table = torch.zeros(self.vocab**self.length, dtype=DTYPE)
        return table.index_add(0, (samples * powers).sum(-1), weights)


def digits(base: int, length: int) -> Tensor:
    """``[base^length, length]`` all numbers of that many digits, in order."""
    return torch.cartesian_prod(*[torch.arange(base)] * length).reshape(-1, length)


def _best_of(p: Tensor, v: Tensor, m: int) -> Tensor:
    """Probability that the best of m draws is each item, over the probability of the item."""
    classes, which = v.unique(return_inverse=True)
    mass = torch.zeros(len(classes), dtype=DTYPE).index_add(0, which, p)
    upto = mass.cumsum(0).clamp(max=1.0)
    return ((upto**m - (upto - mass).clamp(min=0.0) ** m) / mass)[which]


def _one_of(p: Tensor, log_w: Tensor, m: int) -> Tensor:
    """Probability that one of m draws, chosen ∝ w, is each item, over the probability of the item."""
    w = (log_w - log_w.max()).exp()
    # u = exp(x): the integrand falls off exponentially to the left and doubly so to the right, where the trapezoidal rule
    # converges geometrically.
    u = torch.arange(-40.0, 12.0, 0.02, dtype=DTYPE).exp() / w.mean()
    decay = torch.exp(-u[:, None] * w)
    ratio = m * w * (decay * ((decay @ p) ** (m - 1) * u * 0.02)[:, None]).sum(0)
    assert math.isclose(float(p @ ratio), 1.0, abs_tol=1e-9)
    return ratio


def total_variation(p: Tensor, q: Tensor) -> float:
    return 0.5 * float((p - q).abs().sum())


def noise_floor(p: Tensor, n: int, repeats: int = 200, seed: int = 0) -> float:
    """Mean total variation between ``p`` and the frequencies of ``n`` exact independent draws from it."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.multinomial(p.expand(repeats, -1), n, replacement=True, generator=generator)
    counts = torch.zeros(repeats, len(p), dtype=DTYPE).scatter_add(1, draws, torch.ones_like(draws, dtype=DTYPE))
    return float(0.5 * (counts / n - p).abs().sum(1).mean())
