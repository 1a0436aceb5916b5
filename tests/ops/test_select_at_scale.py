"""Selection from 2^24 log-weights: exact shares, indices in range, nothing of weight zero; see docs/selection.md."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastguide.ops import Selection, reweight_select, select
from fastguide.reference import select as reference

N = 2**24
UNBIASED = ["systematic", "stratified", "multinomial", "residual"]
ADVERSARIES = ["sigma 1", "sigma 5", "sigma 30", "one dominates", "offset -3000", "half are zero"]


def adversary(name: str, n: int = N) -> Tensor:
    generator = torch.Generator().manual_seed(7)
    if name == "one dominates":
        x = torch.full((n,), -24 * math.log(2))
        x[n // 3] = 0
        return x
    x = torch.randn(n, generator=generator)
    if name.startswith("sigma"):
        return x.mul_(float(name.split()[1]))
    if name == "offset -3000":
        return x.sub_(3000)
    x[torch.rand(n, generator=generator) < 0.5] = -math.inf
    x[-1] = -math.inf
    return x


def counts_of(selection: Selection, n: int, k: int) -> Tensor:
    """Return the count of each item; fails where an index is out of range or out of order."""
    ancestors = selection.ancestors
    assert int(ancestors[0]) >= 0
    assert int(ancestors[-1]) < n
    assert not bool((ancestors[1:] < ancestors[:-1]).any())
    counts = torch.bincount(ancestors, minlength=n)
    assert int(counts.sum()) == k
    return counts


def shares_of(log_weights: Tensor, k: int) -> Tensor:
    return torch.softmax(log_weights.double(), 0).mul_(k)


@pytest.mark.slow
@pytest.mark.parametrize("name", ADVERSARIES)
def test_counts_of_2_to_24_items(name: str) -> None:
    """Systematic counts are within 1 of their shares, residual ones not below their floor.

    Weights are those of float32 log-weights, right to 2^-22; the share of the largest may therefore be off by that much.
    """
    log_weights = adversary(name)
    dead = log_weights == -math.inf
    for k in (1, N, 3 * N + 1):
        share = shares_of(log_weights, k)
        slack = 1e-3 + share * 2**-21
        for rule in UNBIASED:
            counts = counts_of(select(log_weights, k, rule=rule, seed=k), N, k)
            assert int(counts[dead].sum()) == 0
            if rule == "systematic":
                assert bool(((counts - share).abs() <= 1 + slack).all())
            if rule == "residual":
                assert bool((counts >= (share - slack).floor()).all())
            if rule == "stratified":
                assert bool(((counts - share).abs() <= 2 + slack).all())


@pytest.mark.slow
@pytest.mark.parametrize("name", ADVERSARIES)
def test_ranked_items_of_2_to_24(name: str) -> None:
    log_weights = adversary(name)
    top = select(log_weights, 1000, rule="topk").ancestors.long()
    assert torch.equal(log_weights[top], log_weights.topk(1000).values)
    assert int(select(log_weights, 1, rule="argmax").ancestors) == int(log_weights.argmax())
    noisy = select(log_weights, 1000, rule="gumbel_topk").ancestors.long()
    assert bool((log_weights[noisy] > -math.inf).all())
    assert len(noisy.unique()) == 1000


@pytest.mark.slow
def test_systematic_draws_of_2_to_24_items_are_the_reference_at_both_ends_of_the_uniform() -> None:
    """In plain integers: at u = 0 and at the last u the counts sum to K, and each is within 1 of its integer share."""
    for name in ("sigma 5", "one dominates", "half are zero"):
        log_weights = adversary(name)
        folded = reference.fold(log_weights[None])
        weight = folded.points[0].diff(prepend=torch.zeros(1, dtype=torch.int64))
        for k in (1, N):
            q = -(-int(folded.total) // k)
            for word in (0, -1):
                ancestors = reference.draw(folded, k, "systematic", torch.tensor([[word]]))[0]
                counts = torch.bincount(ancestors, minlength=N)
                weight_and_rest = weight.clone()
                weight_and_rest[folded.largest] += k * q - folded.total
                low = weight_and_rest // q
                assert int(counts.sum()) == k
                assert bool(((counts == low) | (counts == low + 1)).all())
                assert int(counts[weight_and_rest == 0].sum()) == 0


def sums_of_blocks(x: Tensor) -> Tensor:
    return x.double().view(256, -1).sum(1)


@pytest.mark.slow
@pytest.mark.parametrize("rule", UNBIASED)
def test_mean_counts_of_2_to_20_items_are_their_shares(rule: str) -> None:
    """16 seeds; the counts of 256 runs of 4,096 items.

    None has a larger variance than under multinomial draws: 5 of those standard deviations, and 1 for the floor and the
    ceiling. False-alarm rate 256 x 6e-7 = 1.5e-4 a rule at most.
    """
    n = 2**20
    log_weights = adversary("sigma 1", n)
    seeds = 16
    total = sum(counts_of(select(log_weights, rule=rule, seed=seed), n, n) for seed in range(seeds))
    assert isinstance(total, Tensor)
    expected = sums_of_blocks(shares_of(log_weights, n * seeds))
    assert bool(((sums_of_blocks(total) - expected).abs() <= 1 + 5 * expected.sqrt()).all())


@pytest.mark.parametrize("rule", UNBIASED)
@pytest.mark.parametrize(("n", "k"), [(8, 4), (4, 8), (5000, 3), (3, 5000)])
def test_more_and_fewer_draws_than_items(rule: str, n: int, k: int) -> None:
    log_weights = torch.full((n,), -math.inf)
    log_weights[-1] = -2.5
    assert select(log_weights, k, rule=rule).ancestors.tolist() == [n - 1] * k
    even = select(torch.zeros(n), k, rule=rule)
    assert float(even.ess) == n
    counts = counts_of(even, n, k)
    if rule == "systematic":
        assert bool(((counts - k / n).abs() <= 1).all())


@pytest.mark.slow
def test_a_hundred_million_particles() -> None:
    n = 10**8
    log_weights = torch.randn(n, generator=torch.Generator().manual_seed(0))
    for rule in ("systematic", "multinomial"):
        ancestors = select(log_weights, rule=rule).ancestors
        assert 0 <= int(ancestors[0]) < int(ancestors[-1]) < n
        assert not bool((ancestors[1:] < ancestors[:-1]).any())
        del ancestors
    zero = torch.zeros(n)
    got = reweight_select(zero, log_weights, zero, 1.0, 0.0, ess_threshold=1.0)
    assert bool(got.resampled)
    assert torch.equal(got.values, log_weights[got.ancestors])
    assert abs(float(got.log_z_increment) - 0.5) < 1e-3
