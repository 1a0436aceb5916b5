"""Every guidance against the exact target, normaliser and laws of an enumerable process."""

from __future__ import annotations

import math

import pytest
import torch

import fastguide as fg
from tests.oracle.checks import (
    effective_draws,
    mean_distance,
    normalizer_is_unbiased,
    only_the_collapsed_group_is_resampled,
    pooled_distance,
    samples_follow_the_target,
    slope,
)
from tests.oracle.masked import TabularMasked, noise_floor, total_variation
from tests.oracle.steer import read, steer, wrong

ALPHA = 1.0

SMC = {
    "systematic": {"ess_threshold": 0.9},
    "never": {"ess_threshold": 0.0},
    "always": {"ess_threshold": 1.0},
    "stratified": {"rule": "stratified", "ess_threshold": 0.9},
    "multinomial": {"rule": "multinomial", "ess_threshold": 0.9},
    "residual": {"rule": "residual", "ess_threshold": 0.9},
    "max": {"potential": "max", "ess_threshold": 1.0},
    # Its weights grow with the square of the number of values: a milder tilt, or no number of particles is enough.
    "sum": {"potential": "sum", "alpha": 4.0, "ess_threshold": 0.9},
    "max_difference": {"potential": "max_difference", "ess_threshold": 1.0},
    "window": {"value_steps": range(2, 4), "ess_threshold": 0.9},
    "interval": {"value_steps": range(0, 4, 2), "ess_threshold": 0.9},
    "no values": {"value_steps": ()},
    "max in a window": {"potential": "max", "value_steps": (1, 2), "alpha": 2.0, "ess_threshold": 0.95},
    "max_difference in a window": {"potential": "max_difference", "value_steps": (1, 3), "ess_threshold": 0.9},
    "tempered": {"alphas": (8.0, 4.0, 2.0), "ess_threshold": 0.9},
    "tempered max": {"alphas": (8.0, 4.0, 2.0), "potential": "max", "ess_threshold": 1.0},
    "adaptive": {"target_ess": 0.8, "ess_threshold": 0.8},
    "adaptive max": {"target_ess": 0.8, "ess_threshold": 0.8, "potential": "max"},
    "adaptive in a window": {"target_ess": 0.6, "ess_threshold": 0.7, "value_steps": (1, 3)},
}
CONSISTENT = {
    **{f"SMC {name}": fg.SMC(**{"alpha": ALPHA, **settings}) for name, settings in SMC.items()},
    "NestedSMC 2": fg.NestedSMC(alpha=ALPHA, branch=2),
    "NestedSMC 5 always": fg.NestedSMC(alpha=ALPHA, branch=5, ess_threshold=1.0),
    "NestedSMC 3 never": fg.NestedSMC(alpha=ALPHA, branch=3, ess_threshold=0.0),
    "NestedSMC 3 multinomial": fg.NestedSMC(alpha=ALPHA, branch=3, ess_threshold=0.9, rule="multinomial"),
    "BestOfN": fg.BestOfN(alpha=ALPHA),
}
# One of each kind is checked every time; the others differ from it in one setting.
FAST = ("systematic", "always", "max", "max_difference", "window", "tempered", "adaptive", "NestedSMC 2", "BestOfN")
consistent = pytest.mark.parametrize(
    "guidance",
    [
        pytest.param(g, id=name, marks=() if name.removeprefix("SMC ") in FAST else pytest.mark.slow)
        for name, g in CONSISTENT.items()
    ],
)


@pytest.fixture(scope="module")
def oracle():
    return TabularMasked()


class TestNormalizer:
    @consistent
    def test_is_unbiased_whatever_the_values(self, oracle, guidance):
        normalizer_is_unbiased(oracle, guidance, wrong(0.5))

    @pytest.mark.parametrize("alpha", [0.5, 2.0])
    @pytest.mark.parametrize("kind", [fg.SMC, fg.NestedSMC])
    def test_is_unbiased_at_other_temperatures(self, oracle, kind, alpha):
        normalizer_is_unbiased(oracle, kind(alpha=alpha), read(oracle, oracle.soft_values(alpha)))

    @pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
    def test_estimates_the_same_number_at_every_threshold(self, oracle, threshold):
        """log Ẑ of 64 groups of 1,000: mean within 4 standard errors of log Z (false alarms 6e-5), and a bias of order 1/N."""
        for kind in (fg.SMC, fg.NestedSMC):
            guidance = kind(alpha=ALPHA, ess_threshold=threshold)
            run = steer(oracle, guidance, read(oracle, oracle.posterior_means()), particles=1_000, groups=64)
            estimate = run.steering.log_normalizer
            error = float(estimate.std()) / 8
            assert error < 0.02
            assert abs(float(estimate.mean()) - oracle.target(ALPHA)[1]) < 4 * error + 2e-3

    @pytest.mark.parametrize("settings", [s for s in SMC.values() if "target_ess" not in s], ids=str)
    def test_threshold_zero_is_plain_importance_sampling(self, oracle, settings):
        guidance = fg.SMC(**{"alpha": ALPHA, **settings, "ess_threshold": 0.0})
        values = read(oracle, oracle.posterior_means())
        run = steer(oracle, guidance, values, particles=100, groups=3)
        plain = steer(oracle, fg.BestOfN(alpha=guidance.alpha), values, particles=100, groups=3)
        assert torch.equal(run.samples, plain.samples)
        torch.testing.assert_close(run.steering.log_weights, plain.steering.log_weights, rtol=0, atol=1e-12)
        torch.testing.assert_close(run.steering.log_normalizer, plain.steering.log_normalizer, rtol=0, atol=1e-12)

    def test_exact_values_and_many_children_leave_nothing_to_chance(self, oracle):
        """The mean weight of M children of a particle goes to 1 as M grows, and Ẑ to Z with a single particle."""
        spread = []
        for branch in (4, 64, 1024):
            guidance = fg.NestedSMC(alpha=ALPHA, branch=branch)
            run = steer(oracle, guidance, read(oracle, oracle.soft_values(ALPHA)), particles=1, groups=200)
            spread.append(float((run.steering.log_normalizer - oracle.target(ALPHA)[1]).square().mean().sqrt()))
        assert spread[0] > 3 * spread[1] > 9 * spread[2]
        assert spread[2] < 0.05


class TestSamples:
    @pytest.mark.parametrize("name", [n for n in CONSISTENT if n not in ("SMC never", "SMC no values", "BestOfN")])
    def test_are_resampled_on_the_way(self, oracle, name):
        """The checks here would say nothing of a run that never selects."""
        run = steer(oracle, CONSISTENT[name], read(oracle, oracle.posterior_means()), particles=2_000)
        never = getattr(CONSISTENT[name], "ess_threshold", 0.0) == 0.0
        assert bool((run.steering.state.log_z != 0).all()) != never

    @consistent
    def test_follow_the_target(self, oracle, guidance):
        samples_follow_the_target(oracle, guidance)

    @pytest.mark.slow
    @consistent
    def test_approach_the_target_at_the_monte_carlo_rate(self, oracle, guidance):
        sizes, groups = (100, 1_000, 10_000, 100_000), (400, 200, 100, 20)
        distances = [mean_distance(oracle, guidance, *run)[0] for run in zip(sizes, groups, strict=True)]
        assert abs(slope(sizes, distances) + 0.5) <= 0.05

    @pytest.mark.slow
    @consistent
    def test_of_a_hundred_runs_are_the_target(self, oracle, guidance):
        """Worth above 300,000 draws."""
        assert pooled_distance(oracle, guidance) <= 0.01

    @pytest.mark.parametrize("alpha", [0.0, 0.5])
    @pytest.mark.parametrize("branch", [2, 5])
    def test_of_svdd_follow_its_own_law(self, oracle, branch, alpha):
        """20,000 particles over 27 states, which are independent: TV above 1.5 times the noise has probability below 1e-5."""
        values = oracle.posterior_means()
        run = steer(oracle, fg.SVDD(alpha=alpha, branch=branch), read(oracle, values), particles=20_000)
        law = oracle.svdd_law(values, branch, alpha)
        assert total_variation(oracle.frequencies(run.samples, run.steering.log_weights[0]), law) < 1.5 * noise_floor(
            law, 20_000
        )

    def test_of_beam_with_a_survivor_a_parent_follow_the_law_of_svdd_at_alpha_zero(self, oracle):
        values = oracle.posterior_means()
        run = steer(oracle, fg.Beam(branch=3, best_of="parent"), read(oracle, values), particles=20_000)
        law = oracle.svdd_law(values, 3, 0.0)
        assert total_variation(oracle.frequencies(run.samples, run.steering.log_weights[0]), law) < 1.5 * noise_floor(
            law, 20_000
        )

    def test_of_svdd_are_biased_towards_the_pretrained_law(self):
        oracle = TabularMasked(2, 3, 3)
        target, _ = oracle.target(ALPHA)
        values = oracle.soft_values(ALPHA)
        distance = [total_variation(oracle.svdd_law(values, m, ALPHA), target) for m in (2, 8, 32)]
        assert total_variation(oracle.law(), target) > distance[0] > 2 * distance[1] > 4 * distance[2]

    def test_of_beam_rise_with_the_branch(self, oracle):
        values = read(oracle, oracle.posterior_means())
        mean = [
            float(steer(oracle, fg.Beam(branch=m), values, particles=50, groups=50).steering.state.values.mean())
            for m in (2, 4, 16)
        ]
        assert mean == sorted(mean)
        assert math.isclose(mean[-1], float(oracle.rewards.max()), rel_tol=0.1)


class TestCollapse:
    @pytest.mark.parametrize(
        "guidance",
        [
            fg.SMC(alpha=0.3),
            fg.SMC(alpha=0.3, potential="max_difference"),
            fg.SMC(potential="max"),
            fg.NestedSMC(branch=3),
        ],
        ids=str,
    )
    def test_only_the_collapsed_group_is_resampled(self, guidance):
        only_the_collapsed_group_is_resampled(guidance)


def test_effective_draws_of_unweighted_samples_are_their_number(oracle):
    run = steer(oracle, fg.BestOfN(alpha=0.0), wrong(0.0), particles=50, groups=2)
    torch.testing.assert_close(effective_draws(run), torch.full((2,), 50.0, dtype=torch.float64))
