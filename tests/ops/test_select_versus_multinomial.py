"""What `torch.multinomial` and the usual float32 composition get wrong, and that `select` does not; see docs/selection.md.

Each test first shows the failure on the torch that is installed, so that a statement which no longer holds is noticed.
"""

from __future__ import annotations

import math

import pytest
import torch

from fastguide.errors import DegenerateWeights
from fastguide.ops import select

TAIL = 2**22


def dominated() -> torch.Tensor:
    """Return log-weights of one particle and 2^22 others, which have 1/17 of the weight together."""
    log_weights = torch.full((TAIL,), -26 * math.log(2))
    log_weights[0] = 0
    return log_weights


@pytest.mark.slow
def test_more_than_2_to_24_categories() -> None:
    log_weights = torch.zeros(2**24 + 1)
    with pytest.raises(RuntimeError, match="number of categories cannot exceed 2\\^24"):
        torch.multinomial(log_weights.exp(), 1, replacement=True)
    ancestors = select(log_weights, 1000, rule="multinomial").ancestors
    assert int(ancestors.max()) < 2**24 + 1
    assert int(ancestors.min()) >= 0


def test_the_tail_behind_a_dominating_item_is_reached() -> None:
    """Float32 sums lose it whole. Its count is binomial: within 5 standard deviations, false-alarm rate 6e-7."""
    log_weights = dominated()
    k = 2**18
    torch.manual_seed(0)
    assert int((torch.multinomial(log_weights.exp(), k, replacement=True) > 0).sum()) == 0
    share = (TAIL - 1) * 2.0**-26 / (1 + (TAIL - 1) * 2.0**-26)
    for rule in ("multinomial", "systematic"):
        drawn = int((select(log_weights, k, rule=rule).ancestors > 0).sum())
        assert abs(drawn - k * share) <= 5 * math.sqrt(k * share * (1 - share))


def test_the_tail_is_not_reached_by_float32_prefix_sums_either() -> None:
    log_weights = dominated()
    n = len(log_weights)
    points = (torch.arange(n) + 0.5) / n
    composed = torch.searchsorted(torch.softmax(log_weights, 0).cumsum(0), points).clamp_(max=n - 1)
    share = n * torch.softmax(log_weights.double(), 0)
    worst = [
        float((torch.bincount(ancestors, minlength=n) - share).abs().max())
        for ancestors in (composed, select(log_weights).ancestors)
    ]
    assert worst[0] > 10_000
    assert worst[1] <= 1 + 1e-6


def test_items_of_probability_zero_are_not_drawn_where_others_run_out() -> None:
    p = torch.tensor([1.0, 0.0, 0.0, 2.0])
    torch.manual_seed(0)
    assert bool((p[torch.multinomial(p, 3)] == 0).any()), "without replacement, torch draws an item of probability zero"
    with pytest.raises(DegenerateWeights, match="fewer than the 3 items of nonzero weight"):
        select(p.log(), 3, rule="gumbel_topk")
    kept = select(p.log(), 3, rule="gumbel_topk", degenerate="keep").ancestors
    assert bool((p[kept.long()] > 0).all())


def test_draws_without_replacement_do_not_repeat() -> None:
    """Holds of torch 2.13 too; older ones repeated."""
    ancestors = select(
        torch.randn(10_000, generator=torch.Generator().manual_seed(0)), 5000, rule="gumbel_topk"
    ).ancestors
    assert len(ancestors.unique()) == 5000


@pytest.mark.parametrize("rule", ["systematic", "stratified", "multinomial", "residual"])
def test_items_of_probability_zero_are_not_drawn_with_replacement(rule: str) -> None:
    """Holds of torch 2.13 too; older ones drew some."""
    p = torch.rand(2**16, generator=torch.Generator().manual_seed(0))
    p[::2] = 0
    for seed in range(20):
        assert bool((select(p.log(), rule=rule, seed=seed).ancestors % 2 == 1).all())


def test_what_is_wrong_with_the_input_is_named() -> None:
    p = torch.tensor([[0.5, 0.5, 0.5], [0.5, math.nan, 0.5]])
    with pytest.raises(RuntimeError, match="contains either `inf`, `nan` or element < 0"):
        torch.multinomial(p, 1)
    with pytest.raises(ValueError, match="log_weights: nan at group 1, index 1"):
        select(p.log(), 1, rule="multinomial")
    with pytest.raises(ValueError, match="log_weights: inf at group 1, index 1"):
        select(p.nan_to_num(nan=math.inf).log(), 1, rule="multinomial")


def test_a_group_without_weight_does_not_stop_the_others() -> None:
    p = torch.tensor([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    with pytest.raises(RuntimeError, match="sum of probabilities <= 0"):
        torch.multinomial(p, 2, replacement=True)
    with pytest.raises(DegenerateWeights, match="every weight is zero in group 0"):
        select(p.log(), 2, rule="multinomial")
    assert select(p.log(), 2, rule="multinomial", degenerate="keep").ancestors[1].tolist() == [1, 1]


def test_rare_items_are_drawn_as_often_as_they_should() -> None:
    """One item of 1e-5 among 2^20 draws: 10.5 expected, Poisson; [0, 35] has a false-alarm rate below 1e-8, and 0 one of
    3e-5. Below 2^-24 a float32 uniform cannot land, however many the draws."""
    log_weights = torch.tensor([1e-5, 1.0]).log()
    assert 0 < int((select(log_weights, 2**20, rule="multinomial", seed=1).ancestors == 0).sum()) <= 35


def test_the_law_of_multinomial_draws() -> None:
    """Chi-squared over 64 items, 2^20 draws, against its mean 63 and 5 standard deviations: false-alarm rate 1e-5."""
    log_weights = torch.randn(64, generator=torch.Generator().manual_seed(3))
    k = 2**20
    counts = torch.bincount(select(log_weights, k, rule="multinomial", seed=5).ancestors, minlength=64)
    expected = k * torch.softmax(log_weights.double(), 0)
    assert float(((counts - expected) ** 2 / expected).sum()) <= 63 + 5 * math.sqrt(126)
