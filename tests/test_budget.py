"""Budgets that no run exceeds."""

from __future__ import annotations

import pytest
import torch

import fastguide as fg
from tests.oracle.masked import TabularMasked

STEPS, N = 6, 32
PROCESS = fg.MaskedProcess(length=12, vocab=4, steps=STEPS)
GUIDANCES = [
    fg.SMC(alpha=0.5), fg.SMC(alpha=0.5, potential="sum"), fg.NestedSMC(alpha=0.5, branch=4), fg.SVDD(branch=4),
    fg.Beam(branch=3), fg.BestOfN(alpha=0.5), fg.TDS(alpha=0.5, gradient="exact"),
    fg.ClassifierGuidance(gradient="exact"), fg.Scheduled({0: fg.NestedSMC(branch=4), 3: fg.SMC(alpha=0.5)}),
]  # fmt: skip


def logits(x, t):
    row = torch.arange(4.0) / 4
    return row.expand(*x.shape, 4)


def noise(x0):
    return (x0 * torch.arange(1, 13)).sum(1).double().sin()


def run(guidance, budget=None, **options):
    memory = fg.Memory(remember=False, ragged=True)
    return fg.sample(
        PROCESS, logits, noise, guidance, particles=N, budget=budget, progress=False, memory=memory, **options
    )


@pytest.mark.parametrize("guidance", GUIDANCES, ids=lambda g: f"{type(g).__name__} {getattr(g, 'potential', '')}")
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_rows_stay_within_the_budget(guidance, share):
    free = run(guidance)
    last = fg.guidance.protocol.guidance_at(guidance, STEPS - 1).branch
    least = {"denoiser_rows": N * STEPS, "reward_rows": N * last}
    for name, floor in least.items():
        limit = floor + int(share * max(0, getattr(free, name) - floor))
        result = run(guidance, fg.Budget(**{name: limit}))
        assert getattr(result, name) <= limit
        assert len(result.trace) == STEPS
        if type(guidance) is not fg.BestOfN and getattr(free, name) > limit:
            assert 0 <= result.manifest()["guidance_ended_at_step"] < STEPS


@pytest.mark.parametrize("guidance", GUIDANCES, ids=lambda g: type(g).__name__)
def test_a_budget_that_suffices_changes_nothing(guidance):
    free = run(guidance)
    within = run(guidance, fg.Budget(denoiser_rows=10**6, reward_rows=10**6, seconds=1e6))
    assert torch.equal(free.samples, within.samples)
    assert torch.equal(free.log_weights, within.log_weights)
    assert "guidance_ended_at_step" not in within.manifest()


def test_no_time_leaves_the_pretrained_model():
    result = run(fg.SMC(alpha=0.5), fg.Budget(seconds=1e-9))
    plain = run(fg.BestOfN(alpha=0.5))
    assert torch.equal(result.samples, plain.samples)
    torch.testing.assert_close(result.log_weights, plain.log_weights, rtol=0, atol=1e-12)
    assert result.reward_rows == len(torch.unique(plain.samples, dim=0))
    assert result.manifest()["guidance_ended_at_step"] == 0


@pytest.mark.parametrize("guidance", [fg.SMC(), fg.SMC(potential="max", alpha=2.0), fg.NestedSMC(branch=2)], ids=str)
def test_the_normalizer_stays_unbiased(guidance):
    """5,000 groups of 4: the mean of Ẑ within 4 standard errors of Z (false alarms 6e-5), guided on part of the way only."""
    oracle = TabularMasked()
    groups = 5_000
    denoiser = fg.models.wrap(oracle.denoiser, batch_invariant=True)
    result = fg.sample(
        oracle.process, denoiser, fg.rewards.wrap(oracle.reward), guidance, particles=4, groups=groups, progress=False,
        budget=fg.Budget(reward_rows=4 * groups * (2 + guidance.branch)), memory=fg.Memory(merge=False),
    )  # fmt: skip
    assert 0 < result.manifest()["guidance_ended_at_step"] < oracle.steps
    ratio = torch.exp(result.log_normalizer.groups - oracle.target(guidance.alpha)[1])
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / groups**0.5


@pytest.mark.parametrize(
    ("budget", "match"),
    [
        ({"denoiser_rows": 0}, "denoiser_rows"),
        ({"reward_rows": 2.5}, "reward_rows"),
        ({"seconds": -1.0}, "seconds"),
    ],
)
def test_budgets_are_checked(budget, match):
    with pytest.raises(ValueError, match=f"budget: {match}"):
        fg.Budget(**budget)


def test_a_budget_below_an_unguided_run_is_refused():
    with pytest.raises(ValueError, match=r"budget: denoiser_rows: 10 cannot pay .* needs up to 192"):
        run(fg.SMC(), fg.Budget(denoiser_rows=10))
