"""What a guidance must pass; each check fails with an AssertionError, as `tests/mutants.py` shows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

import fastguide as fg
from fastguide.guidance import Guidance
from tests.oracle.enumerable import Enumerable, noise_floor, total_variation
from tests.oracle.steer import Steered, Value, read, steer, wrong


def normalizer_is_unbiased(
    oracle: Enumerable, guidance: Guidance, value: Value | None = None, *, groups: int = 20_000, seed: int = 1
) -> None:
    """20,000 groups of 4 particles, values that are wrong: the mean of Ẑ is Z within 4 standard errors (false alarms 6e-5)."""
    value = value or wrong(0.5)
    _, log_z = oracle.target(guidance.alpha)
    run = steer(oracle, guidance, value, particles=4, groups=groups, seed=seed)
    ratio = torch.exp(run.steering.log_normalizer - log_z)
    error = float(ratio.std()) / math.sqrt(groups)
    assert abs(float(ratio.mean()) - 1.0) <= 4 * error, f"mean Ẑ / Z = {float(ratio.mean()):.4f} ± {error:.4f}"
    assert error <= 0.01, f"standard error {error:.4f} of Z: too few groups to tell"


def effective_draws(run: Steered) -> Tensor:
    """``[G]`` how many independent draws the samples are worth: every resampling adds its own variance, 1/ESS − 1/N."""
    s = run.steering
    weights = torch.softmax(s.log_weights, dim=1)
    last = (weights * weights).sum(dim=1)
    threshold = getattr(s.guidance, "ess_threshold", 0.0) * s.particles
    added = torch.where(run.ess[:-1] < threshold, 1 / run.ess[:-1] - 1 / s.particles, 0.0)
    return 1 / (last + added.sum(dim=0))


def mean_distance(
    oracle: Enumerable, guidance: Guidance, particles: int, groups: int, *, seed: int = 7
) -> tuple[float, float]:
    """Mean total variation to the target over groups, and that of as many exact draws as each of them is worth."""
    target, _ = oracle.target(guidance.alpha or 1.0)
    run = steer(oracle, guidance, read(oracle, oracle.posterior_means()), particles=particles, groups=groups, seed=seed)
    samples, log_weights = run.samples.view(groups, particles, -1), run.steering.log_weights
    distance = [total_variation(oracle.frequencies(samples[g], log_weights[g]), target) for g in range(groups)]
    floor = [noise_floor(target, int(n), repeats=50) for n in effective_draws(run)]
    return sum(distance) / groups, sum(floor) / groups


def slope(sizes: Sequence[int], distances: Sequence[float]) -> float:
    """Least-squares slope of log distance in log size."""
    x, y = (torch.tensor(v, dtype=torch.float64).log() for v in (sizes, distances))
    return float(((x - x.mean()) * y).sum() / (x - x.mean()).square().sum())


def samples_follow_the_target(
    oracle: Enumerable, guidance: Guidance, *, particles: int = 10_000, seed: int = 1
) -> None:
    """Ten groups: their mean TV to the exact target is at most 1.5 times that of as many exact draws as they are worth.

    The TV of a run has a relative deviation of about 0.2, so the mean of ten passes 1.5 by chance only beyond 7 standard
    deviations.
    """
    distance, floor = mean_distance(oracle, guidance, particles, 10, seed=seed)
    assert distance <= 1.5 * floor, f"TV {distance:.4f} is {distance / floor:.2f} times the noise of exact draws"


def only_the_collapsed_group_is_resampled(guidance: Guidance) -> None:
    """10 groups of 100, weights equal in nine and collapsed in one: exactly that one resamples, weights of others stay."""
    groups, particles, collapsed = 10, 100, 7
    s = fg.Steering(guidance, particles=particles, groups=groups, seed=0)
    s.begin(torch.zeros(groups * particles))
    values = torch.full((groups, particles, guidance.branch), 0.5)
    values[collapsed, 3] = 50.0
    s.weigh(values)
    children = s.select()
    others = torch.arange(groups) != collapsed
    parents = children // guidance.branch
    assert s.state.resampled.tolist() == (~others).tolist()
    assert torch.equal(parents[others], torch.arange(particles).expand(groups - 1, -1))
    assert bool((parents[collapsed] == 3).all())
    carried = torch.full((groups - 1, particles), 0.5 / guidance.alpha, dtype=torch.float64)
    torch.testing.assert_close(s.state.log_weights[others], carried, rtol=0, atol=1e-9)
    assert bool((s.state.log_weights[collapsed] == 0).all())
