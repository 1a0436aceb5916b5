"""What a guidance must pass; each check fails with an AssertionError, as `tests/mutants.py` shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

import fastguide as fg
from fastguide.guidance import Guidance
from fastguide.guidance.protocol import proposal_of
from tests.oracle.enumerable import Enumerable, noise_floor, total_variation
from tests.oracle.soft import Table
from tests.oracle.steer import Steered, Value, read, steer, wrong


def normalizer_ratio(
    oracle: Enumerable, guidance: Guidance, value: Value, *, groups: int = 20_000, seed: int = 1
) -> tuple[float, float]:
    """Mean of Ẑ over groups of 4 particles, in units of the exact Z, and its standard error."""
    _, log_z = oracle.target(guidance.alpha)
    run = steer(oracle, guidance, value, particles=4, groups=groups, seed=seed)
    ratio = torch.exp(run.steering.log_normalizer - log_z)
    return float(ratio.mean()), float(ratio.std()) / math.sqrt(groups)


def normalizer_is_unbiased(
    oracle: Enumerable, guidance: Guidance, value: Value | None = None, *, groups: int = 20_000, seed: int = 1
) -> None:
    """20,000 groups of 4 particles, values that are wrong: the mean of Ẑ is Z within 4 standard errors (false alarms 6e-5)."""
    ratio, error = normalizer_ratio(oracle, guidance, value or wrong(0.5), groups=groups, seed=seed)
    assert abs(ratio - 1.0) <= 4 * error, f"mean Ẑ / Z = {ratio:.4f} ± {error:.4f}"
    assert error <= 0.01, f"standard error {error:.4f} of Z: too few groups to tell"


class Weighted(NamedTuple):
    """What a run left: ``samples`` ``[G, N, L]``, ``log_weights`` ``[G, N]``, and the ``draws`` ``[G]`` they are worth."""

    samples: Tensor
    log_weights: Tensor
    draws: Tensor


def worth(log_weights: Tensor, ess: Tensor, resampled: Tensor) -> Tensor:
    """``[G]`` how many independent draws the samples are worth: every resampling adds its own variance, 1/ESS − 1/N.

    ``ess`` and ``resampled`` are those of the steps before the last, ``[T − 1, G]``.
    """
    last = torch.softmax(log_weights, dim=1).square().sum(dim=1)
    added = torch.where(resampled, 1 / ess - 1 / log_weights.shape[1], 0.0)
    return 1 / (last + added.sum(dim=0))


def effective_draws(run: Steered) -> Tensor:
    """``[G]`` how many independent draws the samples of a loop of one's own are worth."""
    s, ess = run.steering, run.ess[:-1]
    return worth(s.log_weights, ess, ess < getattr(s.guidance, "ess_threshold", 0.0) * s.particles)


def sampled(
    oracle: Enumerable, guidance: Guidance, particles: int, groups: int, *, seed: int = 0, **options: Any
) -> fg.Result:
    """Run `fastguide.sample` on an oracle whose rewards know soft tokens."""
    denoiser = fg.models.wrap(oracle.denoiser, batch_invariant=True)
    return fg.sample(
        oracle.process, denoiser, Table(oracle), guidance, particles=particles, groups=groups, seed=seed, progress=False,
        **options,
    )  # fmt: skip


def weighted(
    oracle: Enumerable, guidance: Guidance, particles: int, groups: int, *, seed: int = 7, **options: Any
) -> Weighted:
    """Run guidance on an oracle: a loop of one's own with posterior means where nothing asks for more than `Steering`."""
    if not options and proposal_of(guidance) is None:
        value = read(oracle, oracle.posterior_means())
        run = steer(oracle, guidance, value, particles=particles, groups=groups, seed=seed)
        return Weighted(run.samples.view(groups, particles, -1), run.steering.log_weights, effective_draws(run))
    result = sampled(oracle, guidance, particles, groups, seed=seed, **options)
    log_weights = result.log_weights.view(groups, particles)
    draws = worth(log_weights, result.trace.ess[:-1], result.trace.resampled[:-1])
    return Weighted(result.samples.view(groups, particles, -1), log_weights, draws)


def mean_distance(
    oracle: Enumerable, guidance: Guidance, particles: int, groups: int, *, seed: int = 7, **options: Any
) -> tuple[float, float]:
    """Mean total variation to the target over groups, and that of as many exact draws as each of them is worth."""
    target, _ = oracle.target(guidance.alpha or 1.0)
    run = weighted(oracle, guidance, particles, groups, seed=seed, **options)
    tables = [oracle.frequencies(x, w) for x, w in zip(run.samples, run.log_weights, strict=True)]
    floor = [noise_floor(target, int(n), repeats=50) for n in run.draws]
    return sum(total_variation(table, target) for table in tables) / groups, sum(floor) / groups


def pooled_distance(oracle: Enumerable, guidance: Guidance, *, seed: int = 3, **options: Any) -> float:
    """Total variation of a hundred runs of 10,000, pooled by their normalisers: no bias above 0.01 hides in them."""
    run = weighted(oracle, guidance, 10_000, 100, seed=seed, **options)
    table = oracle.frequencies(run.samples.flatten(0, 1), run.log_weights.flatten())
    return total_variation(table, oracle.target(guidance.alpha or 1.0)[0])


def slope(sizes: Sequence[int], distances: Sequence[float]) -> float:
    """Least-squares slope of log distance in log size."""
    x, y = (torch.tensor(v, dtype=torch.float64).log() for v in (sizes, distances))
    return float(((x - x.mean()) * y).sum() / (x - x.mean()).square().sum())


def samples_follow_the_target(
    oracle: Enumerable, guidance: Guidance, *, particles: int = 10_000, seed: int = 1, **options: Any
) -> None:
    """Ten groups: their mean TV to the exact target is at most 1.5 times that of as many exact draws as they are worth.

    The TV of a run has a relative deviation of about 0.2, so the mean of ten passes 1.5 by chance only beyond 7 standard
    deviations.
    """
    distance, floor = mean_distance(oracle, guidance, particles, 10, seed=seed, **options)
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
