"""DAS's resampling and tempering."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastguide import DegenerateWeights
from fastguide.adapters import das
from tests.adapters.peers import their_resampling, their_tempering


def uneven(batch: int = 6, particles: int = 64) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(batch, particles) * torch.linspace(0.1, 3, batch)[:, None]


@pytest.mark.parametrize("strategy", ["systematic", "stratified", "residual", "multinomial", "ssp"])
def test_what_comes_back_is_what_theirs_gives(strategy):
    rs = pytest.importorskip("particles.resampling")
    log_w = uneven()
    given = log_w.clone()
    np.random.seed(0)
    indices, resampled, out = das.resampling_function(strategy, 0.5)(given)
    _, their_resampled, their_log_w = their_resampling(getattr(rs, strategy), log_w.clone(), 0.5)
    assert out is given
    assert indices.dtype == torch.int32
    assert torch.equal(resampled, their_resampled)
    assert resampled.any()
    assert not resampled.all()
    torch.testing.assert_close(out, their_log_w)
    assert torch.equal(indices[~resampled], torch.arange(64, dtype=torch.int32).expand(int((~resampled).sum()), -1))


@pytest.mark.parametrize("strategy", ["systematic", "stratified", "residual", "multinomial", "ssp"])
def test_counts_are_unbiased(strategy):
    # 20,000 rows of 8: standard errors below 0.01 of a count; 5 of them for 40 counts: false alarm once in 40,000.
    np.random.seed(1)
    log_w = torch.tensor([0.0, 1.0, -1.0, 2.0, 0.5, -torch.inf, 0.3, 1.5]).repeat(20_000, 1)
    share = 8 * torch.softmax(log_w[0].double(), 0)
    indices, _, _ = das.resampling_function(strategy)(log_w)
    counts = torch.nn.functional.one_hot(indices.long(), 8).sum(1).double()
    error = (counts.var(0) / len(counts)).sqrt().clamp(min=1e-9)
    assert ((counts.mean(0) - share).abs() < 5 * error + 1e-6).all()


def test_compat_draws_residuals_as_theirs():
    log_w = torch.tensor([0.1, 0.1, 0.1, 0.1, 0.3, 0.3]).log()[None]  # shares of 6: 0.6 × 4, 1.8 × 2: four left to draw
    np.random.seed(0)
    theirs = das.resampling_function("residual", compat=True)(log_w.repeat(200, 1))[0]
    counts = torch.nn.functional.one_hot(theirs.long(), 6).sum(1)
    assert (counts[:, 4:] == 1).all()  # the last two never get their remainder of 0.8
    assert counts[:, 3].double().mean() > 1.5  # which the fourth gets: 0.6 + 1.6


def test_tempering_finds_the_scale():
    torch.manual_seed(0)
    base, twist = 0.3 * torch.randn(5, 128), torch.randn(5, 128) * torch.tensor([0.01, 1.0, 5.0, 20.0, 2.0])[:, None]
    zero, low = torch.zeros(5, 128), torch.tensor([0.0, 0.0, 0.0, 0.0, 0.9])
    scale = das.adaptive_tempering(base, zero, twist, zero, zero, low, 0.5)
    ess = das.compute_ess_from_log_w(base + scale[:, None] * twist)
    assert scale[0] == 1.0
    assert ess[0] > 64
    torch.testing.assert_close(ess[1:4], torch.full((3,), 64.0), rtol=1e-3, atol=0)
    assert scale[4] == low[4]
    assert ess[4] < 64
    assert scale.dtype == torch.float32


def test_compat_tempers_as_theirs():
    torch.manual_seed(0)
    base, twist = 0.3 * torch.randn(3, 64), 5 * torch.randn(3, 64)
    zero, low = torch.zeros(3, 64), torch.tensor([0.01, 0.1, 0.5])
    theirs = their_tempering(base, twist, low, 0.5, 100)
    ours = das.adaptive_tempering(base, zero, twist, zero, zero, low, 0.5, 100, compat=True)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    right = das.adaptive_tempering(base, zero, twist, zero, zero, low, 0.5)
    assert (right - theirs).abs().max() > 0.05


@pytest.mark.parametrize("strategy", ["systematic", "stratified", "residual", "multinomial", "ssp"])
def test_reruns_agree_and_calls_differ(strategy):
    resample = das.resampling_function(strategy)
    np.random.seed(0)
    a, b = resample(uneven())[0], resample(uneven())[0]
    np.random.seed(0)
    assert torch.equal(resample(uneven())[0], a)
    assert not torch.equal(a, b)


def test_refusals():
    with pytest.raises(KeyError, match="choose one of systematic"):
        das.resampling_function("best")
    with pytest.raises(AssertionError, match="Dimension of log_w should be 2"):
        das.resampling_function()(torch.zeros(3))
    with pytest.raises(ValueError, match="nan at group 1, index 0"):
        das.resampling_function()(torch.tensor([[0.0, 0.0], [torch.nan, 0.0]]))
    with pytest.raises(DegenerateWeights, match="group 1"):
        das.resampling_function()(torch.tensor([[0.0, 0.0], [-torch.inf, -torch.inf]]))
    zero = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="min_scale: expected shape"):
        das.adaptive_tempering(zero, zero, zero, zero, zero, torch.zeros(3))
