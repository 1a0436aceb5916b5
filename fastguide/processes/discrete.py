"""Discrete diffusion whose noise is no mask: tokens that turn into other tokens.

The noise acts on each position alone. With ``Q`` the transition matrix from level s to t > s, ``Q̄(t)`` the one from data to
t, and a network that gives ``p(x0 | x_t)`` at each position, one reverse step draws each position from

    p(x_s = y | x_t) = Σ_x0 q(y | x_t, x0) p(x0 | x_t) = Q[y, x_t] · Σ_x0 Q̄(s)[x0, y] p(x0 | x_t) / Q̄(t)[x0, x_t]

(Austin et al., D3PM, 2107.03006). Temperature, truncation and bias shape ``p(x0 | x_t)``, and ``Q̄(0)`` is the identity, so the
last step draws from it and no forbidden token ends in a sample, though noise may hold one on the way. The pretrained law that
guidance tilts is this process *as run*: positions of one step are drawn independently of each other.

A network may give concrete scores instead, ``s(y) = p_t(x with y at the position) / p_t(x)``, as logarithms (Lou et al., SEDD,
2310.16834). Then ``p(x_s = y | x_t) ∝ Q[y, x_t] · (s Q⁻¹)[y]``, the analytic (Tweedie) step, equal to the one above where the
scores are those of a law; what an imperfect network makes negative there counts as zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from fastguide.ops._checks import choice, count
from fastguide.ops._masked import check_temperature, check_truncation
from fastguide.processes.bound_discrete import BoundDiscrete
from fastguide.processes.masked import SCHEDULES
from fastguide.processes.protocol import Constraints


class Discrete:
    """What discrete processes without a mask share; subclasses say how noise acts.

    Attributes:
        length: positions L. vocab: tokens V. steps: reverse steps T.
        temperature, top_k, top_p, prediction: see `UniformProcess`.
    """

    length: int
    vocab: int
    steps: int
    temperature: float
    top_k: int | None
    top_p: float | None
    prediction: str

    @cached_property
    def times(self) -> tuple[float, ...]:
        """The ``steps + 1`` noise levels, from 1 (noise) to 0 (data)."""
        return (*(1.0 - k / self.steps for k in range(self.steps)), 0.0)

    def bind(
        self, constraints: Constraints, *, groups: int, particles: int, seeds: Tensor, device: torch.device
    ) -> BoundDiscrete:
        """Return the process with the given tokens, lengths and bias of a run, and its noise drawn by ``seeds``."""
        return BoundDiscrete(self, constraints, groups, particles, seeds, device)

    def log_prior(self) -> Tensor:
        """Return float32 ``[V]`` log-probabilities of a position of noise."""
        raise NotImplementedError

    def posterior(self, x: Tensor, p: Tensor, step: int) -> Tensor:
        """Return float64 ``p(x_s | x_t)`` ``[..., V]`` of tokens ``x`` ``[...]`` with ``p(x0 | x_t)`` = ``p`` ``[..., V]``."""
        raise NotImplementedError

    def reverse(self, x: Tensor, score: Tensor, total: Tensor, step: int, *, to_data: bool) -> Tensor:
        """Return what ``p(x_s | x_t)``, or ``p(x0 | x_t)`` if ``to_data``, is proportional to, float64 ``[..., V]``.

        Args:
            x: ``[...]`` tokens.
            score: ``[..., V]`` float64 concrete scores, 1 at the token itself.
            total: ``[..., 1]`` their sum.
            step: steps taken so far.
            to_data: all the way to the data, instead of to the next level.
        """
        raise NotImplementedError

    def _check(self) -> None:
        for name in ("length", "vocab", "steps"):
            if name in self.__dict__:
                object.__setattr__(self, name, count(name, getattr(self, name)))
        check_temperature(self.temperature)
        check_truncation(self.top_k, self.top_p)
        choice("prediction", self.prediction, ("x0", "score"))
        if self.prediction == "score" and (self.temperature != 1.0 or self.top_k is not None or self.top_p is not None):
            raise ValueError(
                'prediction: "score" says nothing of x0 alone, which temperature, top_k and top_p would shape; leave them out'
            )


@dataclass(frozen=True)
class UniformProcess(Discrete):
    """Discrete diffusion with uniform noise: at level t a position holds its token with probability ``a(t)``, else any.

    Args:
        length: positions L of a state (the longest group's, where groups differ).
        vocab: tokens V; a state holds no mask, and ``vocab`` itself marks free positions in ``x_init``.
        steps: reverse steps T; the noise levels are ``1, 1 − 1/T, …, 0``.
        schedule: ``"linear"``, ``"cosine"``, ``"loglinear"`` or a function ``a(t)``, decreasing, with ``a(0) = 1``. The noise
            that a run starts from is uniform whatever ``a(1)`` is.
        temperature: divides the logits (with the bias) of x0; 0 takes its most probable token.
        top_k: keep so many most probable tokens of x0 (and the equals of the last one); all where None.
        top_p: keep the most probable tokens of x0 that hold this share, in ``(0, 1]``, of the probability; all where None.
        prediction: what the network gives, ``[n, L, V]``: ``"x0"``, logits of the clean token, or ``"score"``, logarithms of
            concrete scores (that of the token itself counts as 0). Scores need ``a(1) > 0`` and no temperature or truncation;
            a bias then acts in the last step and on estimates.
        sampler: of scores: ``"analytic"``, or ``"tau_leaping"``, the rates of x_t held for a step (the last one is analytic).
    """

    length: int
    vocab: int
    steps: int = 50
    schedule: str | Callable[[float], float] = "linear"
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    prediction: str = "x0"
    sampler: str = "analytic"

    def __post_init__(self) -> None:
        self._check()
        choice("sampler", self.sampler, ("analytic", "tau_leaping"))
        if self.sampler != "analytic" and self.prediction != "score":
            raise ValueError(f'sampler: "{self.sampler}" works on scores; give prediction="score"')
        if isinstance(self.schedule, str) and self.schedule not in SCHEDULES:
            raise ValueError(
                f"schedule: unknown {self.schedule!r}; choose {', '.join(SCHEDULES)} or give a function a(t)"
            )
        if any(not 0.0 <= t <= s <= 1.0 or t == 1.0 for t, s in pairwise(self.levels)):
            raise ValueError("schedule: a(t) must lie in [0, 1), never rise with t, and be 1 only at t = 0")
        if self.prediction == "score" and self.levels[0] < 1e-9:
            raise ValueError(
                "schedule: where a(1) = 0 scores say nothing of x0; give the network's own, such as lambda t: 1 - 0.999 * t"
            )

    @cached_property
    def levels(self) -> tuple[float, ...]:
        """``a`` at each of `times`."""
        a = self.schedule if callable(self.schedule) else SCHEDULES[self.schedule]
        return (*(a(t) for t in self.times[:-1]), 1.0)

    def log_prior(self) -> Tensor:
        """Return zeros ``[V]``."""
        return torch.zeros(self.vocab)

    def posterior(self, x: Tensor, p: Tensor, step: int) -> Tensor:
        """See `Discrete.posterior`; with ``noise = (1 − a) / V``, ``Q̄ = a I + noise``, no sum over tokens is needed."""
        a_t, a_s = self.levels[step], self.levels[step + 1]
        kept = a_t / a_s if a_s > 0.0 else 1.0
        noise = (1.0 - a_t) / self.vocab
        at_x = x[..., None]
        p_x = p.gather(-1, at_x)
        w_x = p_x / (noise + a_t)
        w = (p / noise).scatter(-1, at_x, w_x)
        mixed = w * a_s + ((1.0 - p_x) / noise + w_x) * ((1.0 - a_s) / self.vocab)
        return self._times_kernel(mixed, at_x, kept)

    def reverse(self, x: Tensor, score: Tensor, total: Tensor, step: int, *, to_data: bool) -> Tensor:
        """See `Discrete.reverse`."""
        a_t, a_s = self.levels[step], 1.0 if to_data else self.levels[step + 1]
        at_x = x[..., None]
        if self.sampler == "tau_leaping" and a_s < 1.0:
            rate = math.log(a_s / a_t) / self.vocab
            return (score * rate).scatter(-1, at_x, (1.0 - (total - 1.0) * rate).clamp(min=0.0))
        kept = a_t / a_s
        return self._times_kernel((score - total * ((1.0 - kept) / self.vocab)).clamp(min=0.0), at_x, kept)

    def _times_kernel(self, f: Tensor, at_x: Tensor, kept: float) -> Tensor:
        """Return ``Q[y, x] f(y)`` of the transition that keeps a token with probability ``kept``."""
        other = (1.0 - kept) / self.vocab
        return (f * other).scatter(-1, at_x, f.gather(-1, at_x) * (other + kept))


@dataclass(frozen=True, eq=False)
class DiscreteProcess(Discrete):
    """Discrete diffusion with transition matrices of one's own (D3PM: discretised Gaussian, nearest neighbours, absorbing, …).

    Args:
        length: positions L of a state.
        transitions: ``[T, V, V]``, rows sum to 1: ``transitions[i][x, y]`` is the probability that noise turns x into y between
            the levels i and i + 1, counted from the data. Reverse step k undoes ``transitions[T − 1 − k]``.
        prior: ``[V]`` probabilities of a position of noise; where None, what the noise makes of a uniform token.
        temperature: as in `UniformProcess`, and so are the others.
        top_k: likewise.
        top_p: likewise.
        prediction: ``"x0"`` or ``"score"``; scores need transitions that have an inverse.
    """

    length: int
    transitions: Tensor
    prior: Tensor | None = None
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    prediction: str = "x0"

    def __post_init__(self) -> None:
        self._check()
        q = self.transitions
        if not isinstance(q, Tensor) or q.ndim != 3 or q.shape[1] != q.shape[2] or q.numel() == 0:
            got = list(q.shape) if isinstance(q, Tensor) else type(q).__name__
            raise ValueError(f"transitions: expected a tensor of shape [T, V, V], got {got}")
        q = q.detach().to("cpu", torch.float64)
        _check_rows("transitions", q)
        object.__setattr__(self, "transitions", q)
        if self.prior is not None:
            if not isinstance(self.prior, Tensor) or self.prior.shape != (self.vocab,):
                got = list(self.prior.shape) if isinstance(self.prior, Tensor) else type(self.prior).__name__
                raise ValueError(f"prior: expected a tensor of shape [{self.vocab}], got {got}")
            object.__setattr__(self, "prior", self.prior.detach().to("cpu", torch.float64))
            _check_rows("prior", self.prior)
        if self.prediction == "score":
            singular = [i for i, m in enumerate(self.cumulative[1:]) if torch.linalg.matrix_rank(m) < self.vocab]
            if singular:
                raise ValueError(
                    f"transitions: scores need an inverse from the data to every level, and to level {singular[0] + 1} there "
                    'is none; give prediction="x0"'
                )

    @property
    def vocab(self) -> int:  # type: ignore[override]
        """Tokens V."""
        return self.transitions.shape[-1]

    @property
    def steps(self) -> int:  # type: ignore[override]
        """Reverse steps T."""
        return len(self.transitions)

    @cached_property
    def cumulative(self) -> Tensor:
        """``[T + 1, V, V]`` float64 transitions from the data to each level."""
        all_ = [torch.eye(self.vocab, dtype=torch.float64)]
        for q in self.transitions:
            all_.append(all_[-1] @ q)
        return torch.stack(all_)

    def log_prior(self) -> Tensor:
        """Return the logarithm of ``prior``."""
        prior = self.cumulative[-1].mean(0) if self.prior is None else self.prior
        return prior.log().float()

    def posterior(self, x: Tensor, p: Tensor, step: int) -> Tensor:
        """See `Discrete.posterior`; an x0 that cannot have become x_t has no part in it."""
        t = self.steps - step
        reached = self._into(self.cumulative[t], x)
        w = torch.where(reached > 0.0, p / reached, 0.0)
        return _product(w, self.cumulative[t - 1].to(x.device)) * self._into(self.transitions[t - 1], x)

    def reverse(self, x: Tensor, score: Tensor, total: Tensor, step: int, *, to_data: bool) -> Tensor:
        """See `Discrete.reverse`."""
        t = self.steps - step
        q = self.cumulative[t] if to_data else self.transitions[t - 1]
        return _product(score, torch.linalg.inv(q).to(x.device)).clamp(min=0.0) * self._into(q, x)

    @staticmethod
    def _into(q: Tensor, x: Tensor) -> Tensor:
        """Return the columns ``q[:, x]`` as ``[..., V]``."""
        return q.T.to(x.device)[x]


def _check_rows(name: str, q: Tensor) -> None:
    if bool((q < 0.0).any()) or not bool(((q.sum(-1) - 1.0).abs() < 1e-6).all()):
        raise ValueError(f"{name}: expected probabilities, rows of numbers of at least 0 that sum to 1")


def _product(rows: Tensor, matrix: Tensor) -> Tensor:
    """Return ``rows @ matrix``, summed in one order: the bits of a row must not depend on how many there are."""
    out = rows[..., :1] * matrix[0]
    for i in range(1, len(matrix)):
        out = out + rows[..., i : i + 1] * matrix[i]
    return out
