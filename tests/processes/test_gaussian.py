"""Gaussian processes: coefficients, predictions, first states, given parts."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

import fastguide as fg
from tests.oracle.gaussian import Mixture, reward

PROCESSES = {
    "ddpm": {},
    "cosine": {"schedule": "cosine"},
    "large": {"variance": "large"},
    "ddim": {"sampler": "ddim", "eta": 0.5},
    "deterministic": {"sampler": "ddim", "eta": 0.0},
    "karras": {"schedule": "karras", "sigma_min": 0.05, "sigma_max": 20.0},
    "edm": {"sampler": "edm", "schedule": "karras", "sigma_min": 0.05, "sigma_max": 20.0, "s_churn": 10.0},
    "flow": {"sampler": "flow", "schedule": "flow", "prediction": "velocity"},
    "second order": {"sampler": "sde-dpmsolver++", "schedule": "cosine"},
    "trained levels": {"schedule": tuple(torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000), 0).tolist())},
}
every = pytest.mark.parametrize("settings", PROCESSES.values(), ids=PROCESSES)


def process(steps=20, shape=1, **settings):
    return fg.GaussianProcess(shape, steps=steps, **settings)


def run(p, guidance=None, denoiser=None, **options):
    settings = {"particles": 64, "progress": False, **options}
    return fg.sample(
        p,
        denoiser or fg.models.wrap(Mixture(p), batch_invariant=True),
        reward,
        guidance or fg.SMC(alpha=1.0),
        **settings,
    )


class TestLevels:
    @every
    def test_go_from_noise_to_data(self, settings):
        p = process(**settings)
        ratio = [a / s for a, s in zip(p.alphas[:-1], p.sigmas_of_states[:-1], strict=True)]
        assert all(before < after for before, after in pairwise(ratio))
        assert (p.alphas[-1], p.times[-1]) == (1.0, 0.0)
        assert len(p.times) == len(p.alphas) == p.steps + 1

    def test_of_a_trained_network_are_its_own(self):
        p = process(steps=10, **PROCESSES["trained levels"])
        assert p.timesteps == (999, 899, 799, 699, 599, 499, 399, 299, 199, 99)
        listed = PROCESSES["trained levels"]["schedule"]
        assert p.alphas[3] == pytest.approx(math.sqrt(listed[699]))
        assert p.step_of(torch.tensor(p.times[:-1])).tolist() == list(range(10))


class TestSteps:
    """Every step maps the noise of one level to that of the next."""

    @every
    def test_keep_the_marginals_of_the_levels(self, settings):
        """With x0 known, ``x = a x0 + s eps`` goes to ``a' x0 + s' eps'``: of mean ``a'``, and of variance ``s'²``."""
        if settings.get("variance") == "large":
            pytest.skip("the larger variance is that of normal data, not of a point")
        p = process(**settings)
        for k, (of_x, of_x0, noise) in enumerate(p.sampler_steps):
            a, s = p.alphas[k], p.sigmas_of_states[k]
            assert of_x * a + of_x0 == pytest.approx(p.alphas[k + 1], abs=1e-12)
            after = p.sigmas_of_states[k + 1] if k + 1 < p.steps else 0.0
            assert (of_x * s) ** 2 + noise**2 == pytest.approx(after**2, abs=1e-12)

    def test_the_larger_variance_keeps_normal_data(self):
        p = process(variance="large", schedule="cosine")
        for k, (of_x, of_x0, noise) in enumerate(p.sampler_steps[:-1]):
            a = p.alphas[k]
            assert (of_x + of_x0 * a) ** 2 + noise**2 == pytest.approx(1.0)

    def test_ddim_at_one_is_ddpm(self):
        found, expected = process(sampler="ddim", eta=1.0).sampler_steps, process().sampler_steps
        torch.testing.assert_close(torch.tensor(found), torch.tensor(expected))

    def test_an_sde_step_of_second_order_is_that_of_ddpm_with_another_clean_sample(self):
        first, second = process(schedule="cosine"), process(**PROCESSES["second order"])
        assert second.sampler_steps == first.sampler_steps
        assert second.extrapolations[0] == second.extrapolations[-1] == 0.0
        assert all(0.0 < f < 2.0 for f in second.extrapolations[1:-1])


@pytest.mark.parametrize("prediction", ["eps", "x0", "v", "score", "velocity"])
@every
def test_the_clean_sample_of_every_prediction(settings, prediction):
    if settings.get("schedule") == "flow" and prediction in ("eps", "score"):
        pytest.skip("tells nothing at the first level")
    p = process(**{**settings, "prediction": prediction})
    oracle = Mixture(p)
    x = torch.linspace(-3.0, 3.0, 7)[:, None]
    for step in (0, p.steps // 2, p.steps - 1):
        expected = oracle.posterior_mean(x, p.alphas[step], p.sigmas_of_states[step])
        found = p.clean(x, oracle.output(x, step).float(), step)
        scale = max(1.0, p.sigmas_of_states[step] / max(p.alphas[step], 1e-3))
        assert float((found - expected).abs().max()) < 1e-5 * scale


@every
def test_samples_are_those_of_the_mixture(settings):
    """4,096 unguided samples: mean −0.5 and variance 5.5 of the mixture within 5 standard errors (0.037 and 0.09 of each; false
    alarms 6e-7) and what 100 steps leave of discretisation (0.1 and 0.4)."""
    p = process(steps=100, **settings)
    x = run(p, fg.BestOfN(), particles=4096).samples[:, 0].double()
    assert abs(float(x.mean()) + 0.5) < 5 * 0.037 + 0.1
    assert abs(float(x.var()) - 5.5) < 5 * 0.09 + 0.4


class TestRuns:
    @pytest.mark.parametrize(
        "guidance", [fg.SMC(), fg.NestedSMC(branch=3), fg.SVDD(branch=3), fg.Beam(branch=2)], ids=repr
    )
    @pytest.mark.parametrize("settings", [PROCESSES["ddpm"], PROCESSES["second order"]], ids=["ddpm", "second order"])
    def test_nothing_but_seeds_decides(self, settings, guidance):
        p = process(steps=8, **settings)
        whole = run(p, guidance, groups=3, seed=[5, 6, 7])
        alone = run(p, guidance, seed=[6])
        assert torch.equal(whole.samples[64:128], alone.samples)
        for memory in (fg.Memory(limit=1), fg.Memory(micro_batch=7), fg.Memory(merge=False)):
            again = run(p, guidance, groups=3, seed=[5, 6, 7], memory=memory)
            assert torch.equal(again.samples, whole.samples)
            assert torch.equal(again.log_weights, whole.log_weights)
        for i in (0, 100):
            assert torch.equal(whole.replay(i)[-1], whole.samples[i])

    def test_states_of_any_shape(self):
        p = process(steps=5, shape=(2, 3, 4), prediction="x0")
        result = fg.sample(
            p, lambda x, t: x * 0.1, lambda x0: x0.flatten(1).sum(1), fg.SMC(), particles=32, groups=2, progress=False
        )
        assert result.samples.shape == (64, 2, 3, 4)
        assert result.best(3).shape == (3, 2, 3, 4)
        assert result.draw(5).shape == (5, 2, 3, 4)
        assert result.diversity(group=0).distinct == 32

    def test_every_state_is_predicted_once(self):
        p = process(steps=6)
        result = run(p, fg.NestedSMC(branch=4))
        assert result.denoiser_rows == 64 + 5 * 256

    def test_clipped_samples(self):
        p = process(steps=10, prediction="x0", clip_x0=0.5)
        assert float(run(p).samples.abs().max()) <= 0.5


class TestGivenParts:
    def test_frozen_parts_come_out_as_they_were_given(self):
        p = process(steps=10, shape=4, prediction="x0")
        given, frozen = torch.tensor([1.0, -2.0, 3.0, 0.0]), torch.tensor([True, False, True, False])
        result = fg.sample(
            p, lambda x, t: x * 0.2, lambda x0: x0.sum(1), fg.SVDD(branch=2), particles=16, groups=2, x_init=given,
            frozen=frozen, progress=False,
        )  # fmt: skip
        assert torch.equal(result.samples[:, frozen], given[frozen].expand(32, 2))
        assert len(torch.unique(result.samples[:, 1])) > 10
        some = fg.sample(
            p, lambda x, t: x * 0.2, lambda x0: x0.sum(1), fg.SVDD(branch=2), particles=16, seed=result.seeds[1:],
            x_init=given, frozen=frozen, memory=fg.Memory(limit=1), progress=False,
        )  # fmt: skip
        assert torch.equal(some.samples, result.samples[16:])

    def test_each_particle_may_have_its_own(self):
        p = process(steps=4, shape=2, prediction="x0")
        given = torch.arange(16.0).view(8, 2)
        result = fg.sample(
            p, lambda x, t: x * 0.2, lambda x0: x0.sum(1), fg.BestOfN(), particles=8, x_init=given,
            frozen=torch.tensor([True, False]), progress=False,
        )  # fmt: skip
        assert torch.equal(result.samples[:, 0], given[:, 0])

    def test_states_to_start_from(self):
        p = process(steps=3, sampler="ddim", eta=0.0, prediction="x0")
        result = run(p, fg.BestOfN(), denoiser=lambda x, t: torch.zeros_like(x), x_init=torch.full((1,), 7.0))
        assert torch.equal(result.samples, torch.zeros(64, 1))
        assert torch.equal(result.replay(0)[0], torch.tensor([7.0]))

    @pytest.mark.parametrize(
        ("options", "error", "match"),
        [
            ({"bias": torch.zeros(3)}, ValueError, "bias: GaussianProcess has no use"),
            ({"lengths": [1]}, ValueError, "lengths: GaussianProcess has no use"),
            ({"frozen": torch.ones(1, dtype=torch.bool)}, ValueError, "x_init"),
            ({"x_init": torch.zeros(1, dtype=torch.int64)}, TypeError, "x_init: expected a float32"),
            ({"x_init": torch.zeros(2)}, ValueError, r"x_init: expected shape \[1\] or \[64, 1\]"),
            ({"x_init": torch.zeros(1), "frozen": torch.ones(1)}, ValueError, "frozen: expected a bool tensor"),
        ],
    )
    def test_constraints_are_checked(self, options, error, match):
        with pytest.raises(error, match=match):
            run(process(), **options)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"shape": ()}, "shape"),
        ({"prediction": "noise"}, "prediction"),
        ({"sampler": "heun"}, "sampler"),
        ({"schedule": "quadratic"}, "schedule"),
        ({"schedule": (0.9, 0.95)}, "alpha_bar"),
        ({"eta": 0.5}, "eta"),
        ({"sampler": "ddim", "eta": -1.0}, "eta"),
        ({"sampler": "ddim", "variance": "large"}, "variance"),
        ({"sampler": "edm"}, "edm"),
        ({"schedule": "flow"}, "tells nothing of x0"),
        ({"sigmas": (1.0, 2.0, 0.0)}, "sigmas"),
        ({"sigma_min": 90.0}, "sigma_min"),
        ({"clip_x0": 0.0}, "clip_x0"),
        ({"schedule": (0.5,)}, "lists only 1"),
    ],
)
def test_settings_are_checked(settings, match):
    with pytest.raises(ValueError, match=match):
        process(**{"steps": 2, **settings})


@pytest.mark.parametrize(
    ("output", "error", "match"),
    [
        (lambda x, t: x.double(), TypeError, r"output\.float"),
        (lambda x, t: x[:, 0], ValueError, r"expected eps of shape \[64, 1\]"),
    ],
)
def test_outputs_are_checked(output, error, match):
    with pytest.raises(error, match=match):
        run(process(), denoiser=output)
