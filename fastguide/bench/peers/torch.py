"""Compositions of torch operations: as they are mostly written, and in the best sparse or in-place forms known to us."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Draw = Callable[[Tensor], Tensor]


# Selection: ancestors, log-mean-weight and effective sample size of log-weights.


def systematic(log_weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Softmax, cumsum, searchsorted: as it is mostly written."""
    m = len(log_weights)
    weights = torch.softmax(log_weights, 0)
    points = (torch.arange(m) + torch.rand(1)) / m
    ancestors = torch.searchsorted(weights.cumsum(0), points).clamp_(max=m - 1)
    return ancestors, torch.logsumexp(log_weights, 0) - math.log(m), 1.0 / weights.square().sum()


class Systematic:
    """The same, into tensors that are kept, with int32 ancestors; boundaries are counted, not searched.

    The number of points below each prefix is one pass of arithmetic, and ``repeat_interleave`` of the differences is what
    ``searchsorted`` would find.
    """

    def __init__(self, log_weights: Tensor, *, search: bool) -> None:
        m = len(log_weights)
        self.x, self.search = log_weights, search
        self.weights, self.points = torch.empty_like(log_weights), torch.empty_like(log_weights)
        self.grid = torch.arange(m, dtype=log_weights.dtype)
        self.index = torch.arange(m, dtype=torch.int32)
        self.ancestors = torch.empty(m, dtype=torch.int32)

    def __call__(self) -> tuple[Tensor, Tensor, Tensor]:
        """Draw once."""
        m, weights, points = len(self.x), self.weights, self.points
        largest = self.x.max()
        torch.sub(self.x, largest, out=weights).exp_()
        total = weights.sum()
        ess = total.square() / torch.dot(weights, weights)
        offset = torch.rand(1)
        torch.cumsum(weights, 0, out=weights)
        if self.search:
            torch.add(self.grid, offset, out=points).mul_(weights[-1] / m)
            ancestors = torch.searchsorted(weights, points, out_int32=True, out=self.ancestors).clamp_(max=m - 1)
        else:
            below = weights.mul_(m / weights[-1]).sub_(offset).ceil_().to(torch.int32).clamp_(max=m)
            below[-1] = m
            counts = torch.diff(below, prepend=below.new_zeros(1))
            ancestors = torch.repeat_interleave(self.index, counts, output_size=m)
        return ancestors, largest + torch.log(total / m), ess


def multinomial(log_weights: Tensor) -> Tensor:
    """``torch.multinomial`` with replacement."""
    return torch.multinomial(torch.softmax(log_weights, -1), log_weights.shape[-1], replacement=True)


def sorted_multinomial(log_weights: Tensor) -> Tensor:
    """Sorted uniforms as partial sums of exponentials, then a search: linear in time."""
    m = len(log_weights)
    spacings = torch.empty(m + 1, dtype=log_weights.dtype).exponential_().cumsum_(0)
    prefix = torch.softmax(log_weights, 0).cumsum_(0)
    points = spacings[:-1].mul_(prefix[-1] / spacings[-1])
    return torch.searchsorted(prefix, points, out_int32=True).clamp_(max=m - 1)


def batched_multinomial(log_weights: Tensor) -> Tensor:
    """One draw a row."""
    return torch.multinomial(torch.softmax(log_weights, -1), 1)


def gumbel_argmax(log_weights: Tensor) -> Tensor:
    """One draw a row."""
    return torch.empty_like(log_weights).exponential_().log_().neg_().add_(log_weights).argmax(-1, keepdim=True)


def exponential_race(log_weights: Tensor) -> Tensor:
    """One draw a row."""
    return torch.softmax(log_weights, -1).div_(torch.empty_like(log_weights).exponential_()).argmax(-1, keepdim=True)


def inverse_cdf(log_weights: Tensor) -> Tensor:
    """One draw a row, from one uniform a row."""
    prefix = torch.softmax(log_weights, -1).cumsum_(-1)
    points = torch.rand(*prefix.shape[:-1], 1).mul_(prefix[..., -1:])
    return torch.searchsorted(prefix, points, right=True).clamp_(max=prefix.shape[-1] - 1)


# One token of each row of logits.


def draw_gumbel(logits: Tensor) -> Tensor:
    """Gumbel noise on all logits."""
    return gumbel_argmax(logits)[..., 0]


def draw_race(logits: Tensor) -> Tensor:
    """An exponential race between probabilities."""
    return exponential_race(logits)[..., 0]


def draw_multinomial(logits: Tensor) -> Tensor:
    """``torch.multinomial``."""
    return torch.multinomial(logits.softmax(-1).flatten(0, -2), 1).view(logits.shape[:-1])


def draw_inverse_cdf(logits: Tensor) -> Tensor:
    """One uniform a row."""
    return inverse_cdf(logits)[..., 0]


def tutorial_gumbel(probabilities: Tensor) -> Tensor:
    """The categorical draw of the tutorial's code, from probabilities."""
    noise = 1e-10 - (torch.rand_like(probabilities) + 1e-10).log()
    return (probabilities / noise).argmax(-1)


def tutorial_multinomial(probabilities: Tensor) -> Tensor:
    """The same by ``torch.multinomial``."""
    return torch.multinomial(probabilities.flatten(0, -2), 1).view(probabilities.shape[:-1])


def everywhere(tokens: Tensor, logits: Tensor, ancestors: Tensor, probability: float, draw: Draw) -> Tensor:
    """The tutorial's way: draw a token at every position, then keep those of revealed positions."""
    # Above 1 GB of logits in parts, as memory would not hold five copies of them.
    at_once = max(1, 2**28 // logits[0].numel())
    if len(ancestors) > at_once:
        return torch.cat([everywhere(tokens, logits, a, probability, draw) for a in torch.split(ancestors, at_once)])
    tokens, logits = tokens[ancestors], logits[ancestors]
    drawn = draw(torch.softmax(logits, -1))
    revealed = (tokens == logits.shape[-1]) & (torch.rand(tokens.shape) < probability)
    return torch.where(revealed, drawn, tokens)


def sparse(tokens: Tensor, logits: Tensor, ancestors: Tensor, probability: float, draw: Draw) -> Tensor:
    """Gather, normalise and draw rows at revealed positions only."""
    children = tokens[ancestors]
    revealed = (children == logits.shape[-1]) & (torch.rand(children.shape) < probability)
    particle, position = revealed.nonzero(as_tuple=True)
    children[particle, position] = draw(logits[ancestors[particle], position])
    return children


class Sparse:
    """`sparse` by inverse CDF, gathered into and normalised in one buffer that is kept."""

    def __init__(self, tokens: Tensor, logits: Tensor, ancestors: Tensor, probability: float) -> None:
        self.tokens, self.logits, self.ancestors, self.probability = tokens, logits, ancestors, probability
        self.children, self.uniform = torch.empty_like(tokens[ancestors]), torch.empty(len(ancestors), tokens.shape[1])
        self.buffer = torch.empty(0, logits.shape[-1])

    def __call__(self) -> Tensor:
        """Propose once."""
        length, vocab = self.logits.shape[1:]
        children = torch.index_select(self.tokens, 0, self.ancestors, out=self.children).view(-1)
        revealed = (children == vocab) & (self.uniform.uniform_() < self.probability).view(-1)
        at = revealed.nonzero()[:, 0]
        rows = self.ancestors[at // length] * length + at % length
        if len(self.buffer) < len(rows):
            self.buffer = torch.empty(len(rows) * 5 // 4, vocab)
        prefix = torch.index_select(self.logits.view(-1, vocab), 0, rows, out=self.buffer[: len(rows)])
        prefix.sub_(prefix.amax(-1, keepdim=True)).exp_().cumsum_(-1)
        points = torch.rand(len(rows), 1).mul_(prefix[:, -1:])
        drawn = torch.searchsorted(prefix, points, right=True).clamp_(max=vocab - 1)
        children[at] = drawn[:, 0]
        return self.children


# Moves and Gaussian steps.


def move_dead(particles: Tensor, dead: Tensor, parents: Tensor) -> Tensor:
    """Overwrite the rows of the dead only."""
    return particles.index_copy_(0, dead, particles.index_select(0, parents))


def gaussian_eager(x: Tensor, prediction: Tensor, ancestors: Tensor, a: float, b: float, sigma: float) -> Tensor:
    """As it is mostly written."""
    x, prediction = x[ancestors], prediction[ancestors]
    return a * x + b * prediction + sigma * torch.randn_like(x)


class GaussianFrugal:
    """The same into tensors that are kept; ``draw(noise)`` fills one with standard normals."""

    def __init__(
        self,
        x: Tensor,
        prediction: Tensor,
        ancestors: Tensor,
        coefficients: tuple[float, float, float],
        draw: Callable[[Tensor], object] = Tensor.normal_,
    ) -> None:
        self.x, self.prediction, self.ancestors, self.draw = x, prediction, ancestors, draw
        self.coefficients = coefficients
        self.children, self.moved, self.noise = (torch.empty_like(x) for _ in range(3))

    def __call__(self) -> Tensor:
        """Propose once."""
        a, b, sigma = self.coefficients
        torch.index_select(self.x, 0, self.ancestors, out=self.children)
        torch.index_select(self.prediction, 0, self.ancestors, out=self.moved)
        self.draw(self.noise)
        return self.children.mul_(a).add_(self.moved, alpha=b).add_(self.noise, alpha=sigma)
