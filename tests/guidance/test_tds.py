"""Proposals guided by gradients, in tokens: exact with weights, biased without."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

import fastguide as fg
from tests.mutants import NoRatio
from tests.oracle.checks import mean_distance, pooled_distance, sampled, samples_follow_the_target, slope
from tests.oracle.masked import DTYPE, TabularMasked, noise_floor, total_variation

GRADIENTS = ["decoded", "exact"]


@dataclass(frozen=True)
class Noise:
    """A value that has nothing to do with the state: a hash of it and of the step."""

    spread: float = 0.5
    reads_output = False

    def look(self, states):
        return torch.cat([states.x, torch.full((len(states.x), 1), states.step)], 1)

    def values(self, looked, rewards, alpha):
        key = (looked * torch.tensor([7.1, 13.7, 29.3, 3.3])[: looked.shape[1]]).sum(1).to(DTYPE)
        return self.spread * 1.7 * torch.sin(key * 12.9898)


def random_shifts(states):
    """A proposal that has nothing to do with the reward."""
    vocab = torch.arange(3) * torch.arange(3)[:, None]
    return torch.sin((states.x.sum(1)[:, None, None] * 7.3 + vocab * 5.1 + states.step) * 1.3)


@pytest.fixture(scope="module")
def oracle():
    return TabularMasked()


ODD = {"temperature": 0.7, "bias": torch.tensor([0.3, 0.0, -0.4]).expand(3, 3), "options": {"top_k": 2}}


def normalizer_ratio(oracle, guidance, groups=20_000, **options):
    """Mean of Ẑ over groups of 4 particles with values at random, in units of the exact Z, and its standard error."""
    result = sampled(oracle, guidance, 4, groups, seed=1, value=Noise(), **options)
    ratio = torch.exp(result.log_normalizer.groups - oracle.target(guidance.alpha)[1])
    return float(ratio.mean()), float(ratio.std()) / math.sqrt(groups)


def normalizer_is_unbiased(oracle, guidance, **options):
    """20,000 groups: the mean of Ẑ is Z within 4 standard errors (false alarms 6e-5)."""
    ratio, error = normalizer_ratio(oracle, guidance, **options)
    assert error <= 0.01
    assert abs(ratio - 1) <= 4 * error, f"mean Ẑ / Z = {ratio:.4f} ± {error:.4f}"


class TestTDS:
    @pytest.mark.parametrize("gradient", [*GRADIENTS, random_shifts])
    def test_its_normalizer_is_unbiased_whatever_the_values(self, oracle, gradient):
        normalizer_is_unbiased(oracle, fg.TDS(gradient=gradient))

    def test_its_normalizer_is_that_of_draws_as_run(self):
        oracle = TabularMasked(**ODD)
        normalizer_is_unbiased(oracle, fg.TDS(alpha=1.5, scale=1.3, clip=2.0), bias=oracle.bias.contiguous())

    @pytest.mark.parametrize("gradient", [*GRADIENTS, random_shifts])
    def test_its_samples_follow_the_target(self, oracle, gradient):
        samples_follow_the_target(oracle, fg.TDS(gradient=gradient, ess_threshold=0.9))

    @pytest.mark.slow
    @pytest.mark.parametrize("gradient", GRADIENTS)
    def test_its_samples_approach_the_target_at_the_monte_carlo_rate(self, oracle, gradient):
        guidance = fg.TDS(gradient=gradient, ess_threshold=0.9)
        sizes, groups = (100, 1_000, 10_000, 100_000), (400, 200, 100, 20)
        distances = [mean_distance(oracle, guidance, *each)[0] for each in zip(sizes, groups, strict=True)]
        assert abs(slope(sizes, distances) + 0.5) <= 0.05
        assert pooled_distance(oracle, guidance) <= 0.01

    def test_other_settings_of_smc_keep_the_target(self, oracle):
        guidance = fg.TDS(
            scale=lambda time: 1 - time, value_steps=(1, 3), alphas=(4.0, 2.0), potential="max_difference"
        )
        samples_follow_the_target(oracle, guidance)

    def test_phases_of_a_schedule_may_be_guided(self, oracle):
        guidance = fg.Scheduled({0: fg.TDS(alpha=2.0), 2: fg.SMC(alpha=1.0)})
        samples_follow_the_target(oracle, guidance, value=fg.PosteriorMean())

    def test_its_weights_are_more_even(self, oracle):
        kept = [float(sampled(oracle, g, 1_000, 10).trace[-1].ess.mean()) for g in (fg.SMC(), fg.TDS())]
        assert kept[1] > 1.1 * kept[0]

    def test_without_the_ratio_the_checks_fail(self, oracle):
        with pytest.raises(AssertionError, match="mean Ẑ"):
            normalizer_is_unbiased(oracle, NoRatio())
        with pytest.raises(AssertionError, match="times the noise"):
            samples_follow_the_target(oracle, NoRatio())
        normalizer_is_unbiased(oracle, NoRatio(scale=0.0))


def distance_when_guided_by_values(**settings):
    """Of 40,000 samples of `ClassifierGuidance` by exact soft values, and of as many exact draws."""
    oracle = TabularMasked(**settings)
    values, target = oracle.soft_values(1.0), oracle.target(1.0)[0]

    def delta(states):
        x = states.x[:, None, None].expand(-1, 3, 3, -1).clone()
        for at in range(3):
            x[:, at, :, at] = torch.arange(3)
        table = values[states.step]
        change = table[oracle.row(x)] - table[oracle.row(states.x)][:, None, None]
        return torch.where((states.x == oracle.mask)[..., None], change, 0.0)

    result = sampled(oracle, fg.ClassifierGuidance(gradient=delta), 40_000, 1)
    found = total_variation(oracle.frequencies(result.samples, result.log_weights), target)
    return found, noise_floor(target, 40_000)


class TestClassifierGuidance:
    def test_of_one_position_a_step_is_exact_with_exact_values(self):
        found, floor = distance_when_guided_by_values(steps=3, options={"reveal": "count"})
        assert found < 1.5 * floor

    def test_comes_nearer_to_the_target_with_more_steps(self):
        found = [distance_when_guided_by_values(steps=steps) for steps in (2, 8, 64)]
        assert found[0][0] > 2 * found[1][0] > 4 * found[2][0]
        assert found[2][0] < 3 * found[2][1]

    def test_raises_rewards_and_carries_no_weights(self, oracle):
        result, plain = (sampled(oracle, g, 2_000, 2) for g in (fg.ClassifierGuidance(), fg.BestOfN(alpha=0.0)))
        assert float(result.rewards.mean()) > float(plain.rewards.mean()) + 0.2
        assert not result.log_weights.any()
        assert math.isnan(float(result.log_normalizer))


def test_the_ratio_is_told_only_where_it_corrects(oracle):
    told = []

    class Spy(fg.TDS):
        def step(self, state, values, *, log_ratio=None, **options):
            told.append(log_ratio is not None)
            return super().step(state, values, log_ratio=log_ratio, **options)

    class Uncorrected(fg.ClassifierGuidance):
        def step(self, state, values, *, log_ratio=None, **options):
            told.append(log_ratio is not None)
            return super().step(state, values, log_ratio=log_ratio, **options)

    sampled(oracle, Spy(), 8, 1)
    sampled(oracle, Uncorrected(), 8, 1)
    assert told == [True] * 4 + [False] * 4
