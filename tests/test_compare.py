"""Guidances at equal budgets."""

from __future__ import annotations

import math

import pytest
import torch

import fastguide as fg
from fastguide.compare import Estimate

PROCESS = fg.MaskedProcess(length=12, vocab=4, steps=6)
GUIDANCES = {"best of n": fg.BestOfN(alpha=0.3), "smc": fg.SMC(alpha=0.3), "svdd": fg.SVDD(alpha=0.3, branch=4)}


def logits(x, t):
    row = torch.arange(4.0) / 4
    return row.expand(*x.shape, 4)


def reward(x0):
    return (x0 * torch.arange(1, 13)).sum(1).double().sin()


@pytest.fixture(scope="module")
def found():
    budgets = [fg.Budget(reward_rows=300), fg.Budget(reward_rows=1200)]
    return fg.compare(PROCESS, logits, reward, GUIDANCES, budget=budgets, replicates=4)


def test_every_guidance_spends_what_it_may(found):
    assert [row.name for row in found.rows] == [name for name in GUIDANCES for _ in range(2)]
    for row in found.rows:
        assert 0.3 * row.budget.reward_rows < row.reward_rows <= row.budget.reward_rows
    particles = {row.name: row.particles for row in found.rows}
    assert particles["best of n"] > particles["smc"] > particles["svdd"]


def test_rows_are_those_of_runs_of_ones_own(found):
    row = found.rows[3]
    results = [
        fg.sample(PROCESS, logits, reward, GUIDANCES["smc"], particles=row.particles, seed=s, budget=row.budget,
                  progress=False)
        for s in range(4)
    ]  # fmt: skip
    best = torch.tensor([float(r.rewards.max()) for r in results]).double()
    assert row.best_reward.mean == pytest.approx(float(best.mean()))
    assert row.best_reward.half_width == pytest.approx(3.18 * float(best.std()) / 2, rel=1e-3)
    assert row.denoiser_rows == pytest.approx(sum(r.denoiser_rows for r in results) / 4)


def test_a_table_and_a_picture(found, tmp_path):
    lines = str(found).splitlines()
    assert len(lines) == 2 + 6
    assert len({len(line) for line in lines}) == 1
    assert "1,200 reward rows" in lines[3]
    pytest.importorskip("matplotlib")
    assert found.plot(tmp_path / "reward.png", reward="best_reward").stat().st_size > 10_000
    with pytest.raises(ValueError, match="reward: expected"):
        found.plot(tmp_path / "reward.png", reward="worst")
    pytest.importorskip("pandas")
    assert len(found.to_dataframe()) == 6


def test_estimates_are_written_with_their_interval():
    assert str(Estimate(1.23456, 0.0351)) == "1.235 ± 0.035"
    assert str(Estimate(1.23456, math.nan)) == "1.235"


def test_equal_classes_are_told_apart():
    pair = [fg.SMC(alpha=1.0), fg.SMC(alpha=2.0)]
    found = fg.compare(PROCESS, logits, reward, pair, budget=fg.Budget(denoiser_rows=500), replicates=1)
    assert [row.name for row in found.rows] == [repr(g) for g in pair]


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"budget": fg.Budget(seconds=1.0)}, ValueError, "denoiser_rows or reward_rows"),
        ({"budget": []}, ValueError, "denoiser_rows or reward_rows"),
        ({"budget": fg.Budget(denoiser_rows=5)}, ValueError, "does not pay for one particle of BestOfN"),
        ({"particles": 3}, TypeError, "particles: compare chooses"),
        ({"replicates": 0}, ValueError, "replicates"),
    ],
)
def test_arguments_are_checked(change, error, match):
    settings = {"budget": fg.Budget(reward_rows=300), **change}
    with pytest.raises(error, match=match):
        fg.compare(PROCESS, logits, reward, GUIDANCES, **settings)
