"""Guidance that changes on the way."""

from __future__ import annotations

import pytest
import torch

import fastguide as fg
from tests.oracle.checks import normalizer_is_unbiased, samples_follow_the_target
from tests.oracle.masked import TabularMasked

WEIGHTED = {
    "temperature": {0: fg.SMC(alpha=3.0, ess_threshold=0.9), 2: fg.SMC(alpha=1.0, ess_threshold=0.9)},
    "children": {0: fg.NestedSMC(branch=4), 1: fg.NestedSMC(branch=2)},
    "algorithm": {0: fg.NestedSMC(alpha=0.8, branch=3), 1: fg.SMC(alpha=2.0, rule="multinomial"), 3: fg.SMC()},
    "first unguided": {0: fg.BestOfN(), 2: fg.SMC(ess_threshold=1.0)},
    "window": {0: fg.SMC(alpha=2.0, value_steps=(1,)), 2: fg.NestedSMC(branch=2)},
}


@pytest.fixture(scope="module")
def oracle():
    return TabularMasked()


@pytest.mark.parametrize("phases", WEIGHTED.values(), ids=WEIGHTED)
def test_the_normalizer_is_unbiased_whatever_the_values(oracle, phases):
    normalizer_is_unbiased(oracle, fg.Scheduled(phases))


def test_weights_left_at_the_old_temperature_are_found_out(oracle, monkeypatch):
    monkeypatch.setattr(fg.Scheduled, "_entered", lambda self, state, before, after: state._replace(carried=()))
    with pytest.raises(AssertionError, match="mean Ẑ"):
        normalizer_is_unbiased(oracle, fg.Scheduled(WEIGHTED["temperature"]))


def test_samples_follow_the_target_of_the_last_phase(oracle):
    samples_follow_the_target(oracle, fg.Scheduled(WEIGHTED["algorithm"]))


def test_one_phase_is_the_guidance_itself(oracle):
    for guidance in (fg.SMC(alpha=0.5), fg.NestedSMC(branch=3), fg.SVDD(branch=3), fg.Beam(branch=2)):
        ours, its = (run(oracle, g) for g in (fg.Scheduled({0: guidance}), guidance))
        assert torch.equal(ours.samples, its.samples)
        assert torch.equal(ours.log_weights, its.log_weights)


def test_children_by_the_step(oracle):
    guidance = fg.Scheduled.each(lambda step: fg.SVDD(alpha=1.0 / (step + 1), branch=2 + step // 2), steps=oracle.steps)
    result = run(oracle, guidance)
    assert result.ancestry.branches == [2 + step // 2 for step in range(oracle.steps)]
    assert result.trace.alpha.tolist() == pytest.approx([1.0 / (step + 1) for step in range(oracle.steps)])
    assert guidance.branch == max(result.ancestry.branches)
    for i in (0, 17, 39):
        assert torch.equal(result.replay(i)[-1], result.samples[i])


def test_values_are_read_where_the_phase_reads_them(oracle):
    seen = []
    guidance = fg.Scheduled({0: fg.BestOfN(), 2: fg.SMC(value_steps=range(3, 9))})
    run(oracle, guidance, callback=lambda step: seen.append(step.reward_rows > 0))
    assert seen == [False, False, *([True] * (oracle.steps - 2))]


def test_equal_neighbours_are_one_phase():
    assert fg.Scheduled.each(lambda step: fg.SMC(alpha=1.0 + step // 5), steps=10) == fg.Scheduled(
        {0: fg.SMC(alpha=1.0), 5: fg.SMC(alpha=2.0)}
    )


@pytest.mark.parametrize(
    ("phases", "error", "match"),
    [
        ({}, ValueError, "starts at 0"),
        ({1: fg.SMC()}, ValueError, "starts at 0"),
        ({0: fg.SMC(), -1: fg.SMC()}, ValueError, "starts at 0"),
        ({0: fg.SMC}, TypeError, "at step 0"),
        ({0: fg.Scheduled({0: fg.SMC()})}, TypeError, "at step 0"),
        ({0: fg.SMC(), 3: fg.SVDD()}, ValueError, "SMC carry weights"),
        ({0: fg.SMC(potential="max")}, ValueError, "potential"),
        ({0: fg.SMC(target_ess=0.5)}, ValueError, "temperature of its own"),
        ({0: fg.SMC(alphas=(2.0,))}, ValueError, "by phases"),
    ],
)
def test_phases_are_checked(phases, error, match):
    with pytest.raises(error, match=match):
        fg.Scheduled(phases)


def run(oracle: TabularMasked, guidance, **options) -> fg.Result:
    return fg.sample(
        oracle.process, fg.models.wrap(oracle.denoiser, batch_invariant=True), oracle.reward, guidance,
        particles=40, progress=False, **options,
    )  # fmt: skip
