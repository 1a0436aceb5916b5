"""Values against what states come to."""

from __future__ import annotations

import math

import pytest
import torch

import fastguide as fg
from tests.oracle.masked import TabularMasked
from tests.oracle.values import Tabled


@pytest.fixture(scope="module")
def oracle():
    return TabularMasked()


def exact(oracle, alpha):
    return Tabled(oracle, oracle.soft_values(alpha))


def calibrate(oracle, value=None, **options):
    denoiser = fg.models.wrap(oracle.denoiser, batch_invariant=True)
    pays = fg.rewards.wrap(oracle.reward, batch_invariant=True)
    return fg.calibrate(oracle.process, denoiser, pays, value, **{"particles": 20_000, **options})


def test_exact_values_are_calibrated(oracle):
    """E[exp(v / alpha)] = E[exp(r / alpha)] at every step, in every tenth: biases within 0.05 and 0.25 of 20,000 draws."""
    found = calibrate(oracle, exact(oracle, 0.8), alpha=0.8)
    assert [s.step for s in found.steps] == list(range(1, oracle.steps))
    assert max(abs(s.bias) for s in found.steps) < 0.05
    for step in range(1, oracle.steps):
        estimated, realised = found.deciles(step)
        assert float((estimated - realised).abs().max()) < 0.25
    correlation = [s.correlation for s in found.steps]
    assert correlation == sorted(correlation)


def test_the_mean_value_has_slope_one(oracle):
    found = calibrate(oracle, exact(oracle, 1e4), alpha=1e4)
    assert all(s.slope == pytest.approx(1.0, abs=0.05) for s in found.steps)


def test_a_wrong_value_is_seen(oracle):
    found = calibrate(oracle, fg.PosteriorMean(), alpha=0.8)
    best = calibrate(oracle, exact(oracle, 0.8), alpha=0.8)
    assert found.steps[0].correlation < best.steps[0].correlation
    assert torch.equal(found.rewards, best.rewards)
    lines = str(found).splitlines()
    assert len(lines) == 2 + oracle.steps - 1


def test_constant_values_have_no_correlation():
    process = fg.MaskedProcess(length=4, vocab=3, steps=3)
    value = fg.PosteriorMean()
    found = fg.calibrate(
        process, lambda x, t: torch.zeros(*x.shape, 3), lambda x0: torch.zeros(len(x0)), value, particles=8
    )
    assert all(math.isnan(s.correlation) and math.isnan(s.slope) and s.bias == 0.0 for s in found.steps)


def test_a_picture(oracle, tmp_path):
    pytest.importorskip("matplotlib")
    assert calibrate(oracle, particles=500).plot(tmp_path / "calibration.png").stat().st_size > 10_000


def test_forbidden_samples_are_left_out(oracle):
    found = fg.calibrate(
        oracle.process,
        oracle.denoiser,
        lambda x0: torch.where(x0[:, 0] == 0, -math.inf, x0.sum(1).double()),
        particles=300,
    )
    assert len(found.rewards) < 300
    assert found.values.shape == (oracle.steps - 1, len(found.rewards))
    with pytest.raises(ValueError, match="fewer than three"):
        fg.calibrate(oracle.process, oracle.denoiser, lambda x0: torch.full((len(x0),), -math.inf), particles=10)
