"""The whole guided step, N particles at once: propose, predict, value, weigh, select, move.

Three workloads, each half way through a run, where half of the positions are masked:

- *peptide*: L = 32, V = 20, a position revealed with probability 1 / 16 (step 16 of 32);
- *rna*: L = 50, V = 4, likewise (step 64 of 128, revealed with probability 1 / 64), the tutorial's RNA task;
- *gaussian*: 64 numbers a particle.

The denoiser is a lookup (the logits at a position are a row of a table, chosen by the token before it; for the Gaussian one
matrix product), written into a tensor that is kept, so that it costs both sides about what writing its output does. The
reward is a position-weight matrix of the most probable completion, or a distance from a point. Selection is systematic and
happens at every step. Each workload is timed with the denoiser inside the step and with its output given; the denoiser alone
is timed too.

The eager competitor is written as a good engineer would: draws at revealed positions only, the cheapest form of each piece
that we found, temporaries overwritten, parents' logits gathered where they are read and nowhere else; both sides also write
into tensors that are kept, which spares them the page faults of fresh ones. The tutorial's manner
normalises and draws at every position and resamples in numpy; the copies of the denoiser's calls that its code makes are not
charged to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastguide import ops
from fastguide.bench.case import OURS, Bar, Case, Sizes, require
from fastguide.bench.peers import torch as torch_peer
from fastguide.values.compiled import PositionWeightMatrix, Quadratic

INTO = f"{OURS}, out="
EAGER, KEPT, TUTORIAL = "torch (eager)", "torch (eager, into tensors that are kept)", "tutorial's manner"
DENOISER = "the denoiser alone"


class Stepped(NamedTuple):
    """What a step leaves: children ``[N, ...]``, log-weights ``[N]``, values ``[N]`` moved by ancestors ``[N]``."""

    children: Tensor
    log_weights: Tensor
    values: Tensor
    ancestors: Tensor


def cases(sizes: Sizes) -> Iterator[Case]:
    """Yield the workloads, with the denoiser inside the step and with its output given."""
    usual = [10**3, 10**4, 10**5, 10**6]
    for name, masked in MASKED.items():
        for n in sizes.of(usual[:1], usual, usual, masked["length"] * (masked["vocab"] * 12 + 60)):
            for inside in (True, False):
                yield masked_case(name, n, inside)
    for n in sizes.of(usual[:1], usual, usual, 64 * 4 * 9):
        for inside in (True, False):
            yield gaussian_case(n, inside)


MASKED: dict[str, dict[str, Any]] = {
    "peptide": {"length": 32, "vocab": 20, "reveal": 1 / 16},
    "rna": {"length": 50, "vocab": 4, "reveal": 1 / 64},
}
GIVEN = ", prediction given"
BETA = 0.5


@dataclass
class Masked:
    """A masked workload: states, weights, denoiser and reward, from a fixed seed."""

    n: int
    length: int
    vocab: int
    reveal: float
    inside: bool = True

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        n, length, vocab = self.n, self.length, self.vocab
        self.tokens = torch.randint(0, vocab, (n, length), generator=generator)
        self.tokens[torch.rand(n, length, generator=generator) < 0.5] = vocab
        self.table = torch.randn(vocab + 1, vocab, generator=generator)
        self.scores = torch.randn(length, vocab, generator=generator)
        self.flat, self.places = self.scores.view(-1), torch.arange(length) * vocab
        self.log_weights = torch.zeros(n)
        self.ancestors = torch.randint(0, n, (n,), generator=generator, dtype=torch.int32).sort().values
        self.before = torch.empty(n, length, dtype=torch.int64)
        # Prediction of the parents, and room for that of the children.
        self.logits, self.predicted = torch.empty(n, length, vocab), torch.empty(n, length, vocab)
        self.predict(self.tokens, self.logits)
        self.predict(self.tokens, self.predicted)
        # Values came back moved from the selection before.
        self.values = self.reward(ops.masked_mode(self.tokens, self.logits))[self.ancestors]

    @cached_property
    def kept(self) -> tuple[Tensor, Tensor]:
        """Room for children and for their estimates."""
        return self.tokens.new_empty(self.n, 1, self.length), torch.empty_like(self.tokens)

    @cached_property
    def kept_eager(self) -> tuple[torch_peer.Sparse, Tensor, Tensor, Tensor]:
        """The proposal of the eager form that keeps its tensors, and room for maxima, their tokens and estimates."""
        propose = torch_peer.Sparse(self.tokens, self.logits, self.ancestors, self.reveal)
        return propose, torch.empty(self.n, self.length), torch.empty_like(self.tokens), torch.empty_like(self.tokens)

    def predict(self, tokens: Tensor, into: Tensor) -> Tensor:
        """The denoiser: logits from the token before each position."""
        self.before[:, 0] = self.vocab
        self.before[:, 1:] = tokens[:, :-1]
        torch.index_select(self.table, 0, self.before.view(-1), out=into.view(-1, self.vocab))
        return into

    def reward(self, x0: Tensor) -> Tensor:
        """A position-weight matrix, by the quickest torch form."""
        return self.scores.expand(len(x0), -1, -1).gather(2, x0[..., None]).sum((1, 2))

    @cached_property
    def compiled_reward(self) -> Any:
        """The same as a compiled value."""
        return PositionWeightMatrix(self.scores)

    def denoise(self, tokens: Tensor) -> Tensor:
        """Return the children's prediction: computed, or as it was given."""
        return self.predict(tokens, self.predicted) if self.inside else self.predicted

    def ours(self, kept: bool = False) -> Stepped:
        """The kernels, as one who owns his loop calls them."""
        into, estimates = self.kept if kept else (None, None)
        children = ops.masked_step(
            self.tokens, self.logits, reveal_probability=self.reveal, ancestors=self.ancestors, seed=1, out=into
        )[:, 0]
        clean = ops.masked_mode(children, self.denoise(children), out=estimates)
        out = ops.reweight_select(
            self.log_weights, self.compiled_reward, self.values, BETA, BETA, states=clean, ess_threshold=1.0, seed=1
        )
        return Stepped(children, out.log_weights, out.values, out.ancestors)

    def eager(self) -> Stepped:
        """Idiomatic torch, sparse and in place."""
        children = torch_peer.sparse(self.tokens, self.logits, self.ancestors, self.reveal, torch_peer.draw_inverse_cdf)
        logits = self.denoise(children)
        # `max` is quicker than `argmax`, and at half masked quicker than gathering the masked rows first.
        values = self.reward(torch.where(children == self.vocab, logits.max(-1).indices, children))
        return self._select(children, values)

    def eager_kept(self) -> Stepped:
        """The same into tensors that are kept."""
        propose, maxima, likeliest, clean = self.kept_eager
        children = propose().view_as(clean)
        torch.max(self.denoise(children), -1, out=(maxima, likeliest))
        return self._select(children, self.reward(torch.where(children == self.vocab, likeliest, children, out=clean)))

    def tutorial(self) -> Stepped:
        """Probabilities and draws everywhere, resampling on the host."""
        children = torch_peer.everywhere(
            self.tokens, self.logits, self.ancestors, self.reveal, torch_peer.tutorial_gumbel
        )
        probabilities = torch.softmax(self.denoise(children), -1)
        values = self.reward(torch.where(children == self.vocab, probabilities.argmax(-1), children))
        weights = torch.exp((values - self.values) * BETA).double().numpy()
        drawn = np.random.default_rng().choice(self.n, self.n, p=weights / weights.sum())
        ancestors = torch.from_numpy(drawn)
        return Stepped(children, torch.zeros(self.n), values[ancestors], ancestors)

    def _select(self, children: Tensor, values: Tensor) -> Stepped:
        log_weights = torch.sub(values, self.values).mul_(BETA).add_(self.log_weights)
        ancestors = torch_peer.Systematic(log_weights, search=False)()[0]
        return Stepped(children, log_weights.zero_(), values[ancestors], ancestors)


def masked_case(name: str, n: int, inside: bool) -> Case:
    """One step of a masked workload."""
    work = Masked(n, **MASKED[name], inside=inside)
    competitors: dict[str, Callable[[], Any]] = {
        OURS: work.ours,
        INTO: partial(work.ours, kept=True),
        EAGER: work.eager,
        KEPT: work.eager_kept,
    }
    if n <= 10**5:
        competitors[TUTORIAL] = work.tutorial
    if inside:
        competitors[DENOISER] = lambda: work.predict(work.tokens, work.predicted)
    parents = work.tokens[work.ancestors]
    free = int((parents == work.vocab).sum())
    agree = _agreement(work.eager(), n)

    def check(competitor: str, got: Any) -> None:
        if competitor == DENOISER:
            return
        children = got.children
        require(children.shape == parents.shape, f"children of shape {list(children.shape)}")
        require(bool(((children == parents) | (parents == work.vocab)).all()), "a token that was there has changed")
        revealed, expected = int((children != parents).sum()), free * work.reveal
        require(abs(revealed - expected) < 6 * expected**0.5 + 1, f"{revealed} revealed and not about {expected:.0f}")
        agree(got)

    # Tokens of parents and children, logits where tokens are drawn, the children's logits where they are masked.
    row = 4 * work.vocab
    moved = 2 * 8 * n * work.length + int(free * work.reveal) * row + int(free * (1 - work.reveal)) * row
    moved += 8 * n * work.length * row // (2 * 4 * work.vocab) if inside else 0
    return Case("guided_step", name + ("" if inside else GIVEN), n, competitors, moved, check, MASKED[name])


@dataclass
class Gaussian:
    """A Gaussian workload: the prediction is x̂0, and the reward the distance of it from a point."""

    n: int
    inside: bool = True
    d: int = 64
    coefficients: tuple[float, float, float] = (0.8, 0.2, 0.3)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(self.n, self.d, generator=generator)
        self.matrix = torch.randn(self.d, self.d, generator=generator) / self.d**0.5
        self.center = torch.randn(self.d, generator=generator)
        self.log_weights = torch.zeros(self.n)
        self.ancestors = torch.randint(0, self.n, (self.n,), generator=generator, dtype=torch.int32).sort().values
        self.prediction, self.predicted = self.x @ self.matrix, self.x @ self.matrix
        # Values came back moved from the selection before.
        self.values = self.reward(self.prediction)[self.ancestors]

    def denoise(self, x: Tensor) -> Tensor:
        """Return the children's prediction: computed, or as it was given."""
        return torch.mm(x, self.matrix, out=self.predicted) if self.inside else self.predicted

    def reward(self, x0: Tensor) -> Tensor:
        """Minus a quarter of the squared distance."""
        return (x0 - self.center).square_().sum(1).mul_(-0.25)

    @cached_property
    def compiled_reward(self) -> Any:
        """The same as a compiled value."""
        return Quadratic(torch.full((self.d,), -0.5), self.center)

    def ours(self) -> Stepped:
        """The kernels, as one who owns his loop calls them."""
        a, b, sigma = self.coefficients
        children = ops.gaussian_step(
            self.x,
            self.prediction,
            x_coefficient=a,
            prediction_coefficient=b,
            sigma=sigma,
            ancestors=self.ancestors,
            seed=1,
        )[:, 0]
        clean = self.denoise(children)
        out = ops.reweight_select(
            self.log_weights, self.compiled_reward, self.values, BETA, BETA, states=clean, ess_threshold=1.0, seed=1
        )
        return Stepped(children, out.log_weights, out.values, out.ancestors)

    def eager(self) -> Stepped:
        """Idiomatic torch, in place."""
        a, b, sigma = self.coefficients
        children = self.x[self.ancestors].mul_(a).add_(self.prediction[self.ancestors], alpha=b)
        children.add_(torch.randn_like(children), alpha=sigma)
        values = self.reward(self.denoise(children))
        log_weights = torch.sub(values, self.values).mul_(BETA).add_(self.log_weights)
        ancestors = torch_peer.Systematic(log_weights, search=False)()[0]
        return Stepped(children, log_weights.zero_(), values[ancestors], ancestors)


def gaussian_case(n: int, inside: bool) -> Case:
    """One step of the Gaussian workload."""
    work = Gaussian(n, inside)
    competitors: dict[str, Callable[[], Any]] = {OURS: work.ours, EAGER: work.eager}
    if inside:
        competitors[DENOISER] = lambda: work.denoise(work.x)
    agree = _agreement(work.eager(), n)

    def check(competitor: str, got: Any) -> None:
        if competitor != DENOISER:
            require(got.children.shape == work.x.shape, f"children of shape {list(got.children.shape)}")
            agree(got)

    # Parents, predictions and children; the children's prediction read, and written where it is computed.
    moved = 4 * n * work.d * (6 if inside else 4)
    return Case("guided_step", "gaussian" + ("" if inside else GIVEN), n, competitors, moved, check, {"d": work.d})


def _agreement(reference: Stepped, n: int) -> Callable[[Stepped], None]:
    """Return the check that values after selection have the mean of those of another implementation."""
    expected, spread = float(reference.values.double().mean()), float(reference.values.double().std())

    def check(got: Stepped) -> None:
        require(got.values.shape == got.log_weights.shape == got.ancestors.shape == (n,), "a shape is wrong")
        mean = float(got.values.double().mean())
        # Both sides are random, of as many independent draws as the numbers of siblings leave: 6 sigma of their difference.
        allowed = 6 * spread * (_shared(reference.ancestors) + _shared(got.ancestors)) ** 0.5
        require(abs(mean - expected) < allowed, f"mean value {mean:.4f} and not {expected:.4f}")

    return check


def bars() -> Iterator[Bar]:
    """Yield the figures to reach."""
    for name in MASKED:
        for inside in (True, False):
            what = f"whole masked guided step ({name}{'' if inside else GIVEN}), N = 10^5"
            for against, peer in (("eager torch", EAGER), ("eager torch, into kept tensors", KEPT)):
                yield Bar(what, partial(masked_case, name, 10**5, inside), against, (peer,), 10, (OURS, INTO))


def _shared(ancestors: Tensor) -> float:
    """Return the chance that two draws, the same one included, have one ancestor: 1 over the effective number of draws."""
    shares = torch.bincount(ancestors.long()).double() / len(ancestors)
    return float((shares * shares).sum())
