"""A masked diffusion small enough to enumerate: exact denoiser, kernel as run, soft values, target, normaliser, limit laws.

States are numbered in base V + 1 (the mask id V is a digit), clean samples in base V. The kernel of a step is a list of its
``(2V + 1)^L`` possible transitions, 531,441 at L = 6 and V = 4: a revealed position stays, a masked one takes any of V + 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

import fastguide as fg

DTYPE = torch.float64


class Kernel(NamedTuple):
    """Transitions of one step: ``probability[i]`` of going from state ``source[i]`` to state ``to[i]``."""

    source: Tensor
    to: Tensor
    probability: Tensor


@dataclass
class TabularMasked:
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
        self.mask = self.vocab
        self.states = _digits(self.vocab + 1, self.length)
        self.clean = self.row(_digits(self.vocab, self.length))
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

    def row(self, x: Tensor) -> Tensor:
        """The number of each state ``[..., L]`` among all."""
        return (x * (self.vocab + 1) ** torch.arange(self.length - 1, -1, -1)).sum(-1)

    def denoiser(self, x: Tensor, t: Tensor) -> Tensor:
        return self.logits_of[self.row(x)].float()

    def reward(self, x0: Tensor) -> Tensor:
        return self.rewards[tuple(x0.T)]

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
        code = _digits(len(before), self.length)
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

    def push(self, law: Tensor, step: int) -> Tensor:
        """The law ``[S]`` after a step of states that follow ``law`` before it."""
        k = self.kernel(step)
        return torch.zeros_like(law).index_add(0, k.to, law[k.source] * k.probability)

    def expect(self, f: Tensor, step: int) -> Tensor:
        """``[S]`` ``E[f(x after the step) | x before it]``; where the transition is impossible f is not read."""
        k = self.kernel(step)
        terms = torch.where(k.probability > 0, k.probability * f[k.to], 0.0)
        return torch.zeros_like(f).index_add(0, k.source, terms)

    def start(self) -> Tensor:
        law = torch.zeros(len(self.states), dtype=DTYPE)
        law[-1] = 1.0
        return law

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

    def posterior_means(self) -> list[Tensor]:
        """``r(x̂0(x))`` after 0, 1, …, T steps, each ``[S]``: what `PosteriorMean` gives, and the reward at the end."""
        logits = self.logits_of.float() if self.bias is None else self.logits_of.float() + self.bias.float()
        guess = torch.where(self.states == self.mask, logits.argmax(-1), self.states)
        return [self.reward(guess)] * self.steps + [self.reward_table()]

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


def _digits(base: int, length: int) -> Tensor:
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
