"""Proposals guided by gradients, in real states, against the exact law of the process as run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch

import fastguide as fg
from tests.guidance.test_gaussian import SETTINGS, run
from tests.mutants import NoRatio
from tests.oracle.gaussian import Mixture, moments, reward

# A gradient through the denoiser of well separated modes is large between them: clipped, the weights stay even.
GUIDANCES = {
    "through": fg.TDS(clip=1.0),
    "decoded": fg.TDS(gradient="decoded", clip=1.0),
    "scaled": fg.TDS(scale=lambda time: 1 - 0.5 * time, clip=1.0),
}
CASES = [(settings, name) for settings in SETTINGS for name in GUIDANCES if name != "scaled" or settings == "flow"]


@dataclass(frozen=True)
class Noise:
    """A value that has nothing to do with the reward."""

    reads_output = False

    def look(self, states):
        return states.x[:, 0]

    def values(self, looked, rewards, alpha):
        return 0.5 * torch.sin(looked.double() * 100.0)


@pytest.mark.parametrize(("settings", "name"), CASES)
def test_the_normalizer_and_the_law_are_those_of_the_process_as_run(settings, name):
    """Ẑ of 16 groups of 256: within 4 standard errors (false alarms 6e-5), which are below 8 %; mean and variance of the
    samples within 0.12, where groups disagree by 0.02 and 0.03."""
    process = fg.GaussianProcess(1, steps=12, **SETTINGS[settings])
    exact = Mixture(process).target(points=801)
    result = run(process, GUIDANCES[name], 256, 16)
    error = result.log_normalizer.standard_error
    assert error < 0.08
    found = moments(result)
    assert abs(found.log_z - exact.log_z) < 4 * error
    assert abs(found.mean - exact.mean) < 0.12
    assert abs(found.variance - exact.variance) < 0.12


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_more_of_the_particles_count_than_without_a_gradient(settings):
    process = fg.GaussianProcess(1, steps=12, **settings)
    smc, tds = (run(process, g, 256, 16) for g in (fg.SMC(), fg.TDS(clip=1.0)))
    ess = [torch.stack([step.ess for step in result.trace]).mean() for result in (smc, tds)]
    assert ess[1] > ess[0]
    assert tds.log_normalizer.standard_error < smc.log_normalizer.standard_error


def unbiased(guidance, groups=10_000):
    """10,000 groups of 4, values at random: the mean of Ẑ within 4 standard errors of Z (false alarms 6e-5)."""
    process = fg.GaussianProcess(1, steps=4, schedule="cosine")
    denoiser = fg.models.wrap(Mixture(process), batch_invariant=True)
    pays = fg.rewards.wrap(reward, batch_invariant=True)
    result = fg.sample(
        process,
        denoiser,
        pays,
        guidance,
        value=Noise(),
        particles=4,
        groups=groups,
        progress=False,
        memory=fg.Memory(call_rows=1_000),
    )
    ratio = torch.exp(result.log_normalizer.groups - Mixture(process).target().log_z)
    error = float(ratio.std()) / math.sqrt(groups)
    assert error < 0.02
    assert abs(float(ratio.mean()) - 1) < 4 * error, f"mean Ẑ / Z = {float(ratio.mean()):.4f} ± {error:.4f}"


def test_the_normalizer_is_unbiased_with_wrong_values():
    unbiased(fg.TDS(gradient="decoded", clip=1.0))


def test_without_the_ratio_it_is_not():
    with pytest.raises(AssertionError, match="mean Ẑ"):
        unbiased(NoRatio(gradient="decoded", clip=1.0))


def test_guidance_without_weights_moves_samples_to_where_the_reward_is_high():
    process = fg.GaussianProcess(1, steps=12, schedule="cosine")
    plain, guided = (run(process, g, 1_000, 1) for g in (fg.BestOfN(), fg.ClassifierGuidance()))
    assert float(guided.rewards.mean()) > float(plain.rewards.mean()) + 2.0


def test_given_parts_take_no_part_in_the_ratio():
    """The last of three coordinates, which are normal and independent, is given: Z is that of the other two."""
    process = fg.GaussianProcess(3, steps=20, prediction="x0", schedule="cosine", variance="large")

    def denoiser(x, t):
        return process.alphas[int(process.step_of(t[:1]))] * x

    result = fg.sample(
        process, fg.models.wrap(denoiser, batch_invariant=True),
        fg.rewards.wrap(lambda x0: -0.5 * x0.double().square().sum(1), batch_invariant=True), fg.TDS(), particles=256,
        groups=16, x_init=torch.tensor([0.0, 0.0, 1.0]), frozen=torch.tensor([False, False, True]), progress=False,
    )  # fmt: skip
    assert abs(float(result.log_normalizer) + math.log(2.0) + 0.5) < 4 * result.log_normalizer.standard_error + 0.05
    assert bool((result.samples[:, 2] == 1.0).all())
