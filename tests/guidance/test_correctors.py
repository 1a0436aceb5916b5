"""Products of models against exact laws: weighed, their steps sample the product of the laws; as drawn they do not."""

from __future__ import annotations

import math

import pytest
import torch

import fastguide as fg
from fastguide.models import Product
from tests.oracle.gaussian import MEANS, VARIANCES, WEIGHTS, Mixture
from tests.oracle.masked import DTYPE, TabularMasked, noise_floor, total_variation

EXPONENTS = {"annealed": (2.5, 0.0), "classifier-free": (2.0, -1.0), "experts": (0.7, 0.9)}


def named(exponents, *fast):
    """One case of each kind is checked every time."""
    marks = [() if name in fast else pytest.mark.slow for name in exponents]
    cases = [pytest.param(w, id=name, marks=m) for (name, w), m in zip(exponents.items(), marks, strict=True)]
    return pytest.mark.parametrize("exponents", cases)


def pair(**settings):
    """Two oracles with joint tables of their own and the rewards of the first."""
    first = TabularMasked(seed=0, **settings)
    return first, TabularMasked(seed=5, rewards=first.rewards, **settings)


def product(oracles, exponents, **options):
    experts = [fg.models.wrap(o.denoiser, batch_invariant=True) for o in oracles]
    return Product(experts, exponents, **options)


def run(oracles, exponents, guidance, particles, groups, *, corrected=True, **options):
    o, denoiser = oracles[0], product(oracles, exponents, corrected=corrected)
    pays = fg.rewards.wrap(o.reward, batch_invariant=True)
    return fg.sample(
        o.process, denoiser, pays, guidance, particles=particles, groups=groups, progress=False,
        **{"seed": 1} | options,
    )  # fmt: skip


def as_run(oracles, exponents, temperature=1.0, bias=0.0):
    """``[V^L]`` weights of clean samples: kernels whose draws are products of powers, pushed through all steps."""
    o = TabularMasked(steps=oracles[0].steps, options=oracles[0].options)
    log_p = sum(w * e.logits_of for w, e in zip(exponents, oracles, strict=True))
    o.__dict__["draws"] = ((log_p + bias) / temperature).exp()
    weights = o.start()
    for step in range(o.steps):
        weights = o.push(weights, step)
    return weights[o.clean]


def distances(result, oracle, target):
    """Mean TV of the groups to ``target``, and that of as many exact draws as they are worth (see `tests.oracle.checks`)."""
    groups, n = result.groups, result.particles
    weights, samples = result.log_weights.view(groups, n), result.samples.view(groups, n, -1)
    last = torch.softmax(weights, 1).square().sum(1)
    added = sum(torch.where(s.resampled, 1 / s.ess - 1 / n, 0.0) for s in result.trace[:-1])
    floor = sum(noise_floor(target, int(k), repeats=50) for k in 1 / (last + added)) / groups
    found = sum(total_variation(oracle.frequencies(samples[g], weights[g]), target) for g in range(groups)) / groups
    return found, floor


def tilted(weights, oracle, alpha=1.0):
    """The target with the reward, and the log of its normaliser."""
    w = weights * (oracle.rewards.flatten() / alpha).exp()
    return w / w.sum(), float(w.sum().log())


class TestTokens:
    @named(EXPONENTS, "annealed", "classifier-free")
    def test_one_position_a_step_gives_the_product_of_the_joint_laws(self, exponents):
        oracles = pair(steps=3, options={"reveal": "count"})
        weights = sum(w * o.log_joint for w, o in zip(exponents, oracles, strict=True)).exp().flatten()
        torch.testing.assert_close(as_run(oracles, exponents), weights)
        result = run(oracles, exponents, fg.SMC(), 4_000, 4)
        target, log_z = tilted(weights, oracles[0])
        found, floor = distances(result, oracles[0], target)
        assert found <= 1.5 * floor
        assert abs(float(result.log_normalizer) - log_z) < 5 * result.log_normalizer.standard_error + 1e-3
        plain = run(oracles, exponents, fg.SMC(), 4_000, 4, corrected=False)
        assert distances(plain, oracles[0], target)[0] > 1.5 * floor

    @pytest.mark.parametrize("guidance", [fg.BestOfN(), fg.NestedSMC(branch=3), fg.SMC(potential="max")], ids=repr)
    def test_several_positions_a_step_give_the_law_as_run(self, guidance):
        oracles = pair()
        target, _ = tilted(as_run(oracles, (2.0, -1.0)), oracles[0])
        found, floor = distances(run(oracles, (2.0, -1.0), guidance, 4_000, 4), oracles[0], target)
        assert found <= 1.5 * floor

    @named(EXPONENTS, "classifier-free")
    def test_the_normalizer_is_unbiased(self, exponents):
        """20,000 groups of 4: the mean of Ẑ is Z within 4 standard errors (false alarms 6e-5)."""
        oracles = pair()
        _, log_z = tilted(as_run(oracles, exponents), oracles[0])
        result = run(oracles, exponents, fg.SMC(), 4, 20_000)
        ratio = torch.exp(result.log_normalizer.groups - log_z)
        error = float(ratio.std()) / math.sqrt(len(ratio))
        assert error < 0.02
        assert abs(float(ratio.mean()) - 1) <= 4 * error

    def test_temperature_and_bias_are_powers_and_factors(self):
        bias = torch.tensor([[0.5, -torch.inf, 0.0], [0.0, 0.0, 1.0], [0.0, -2.0, 0.0]])
        oracles = pair(temperature=0.6)
        target, _ = tilted(as_run(oracles, (0.8, 0.4), 0.6, bias.double()), oracles[0])
        result = run(oracles, (0.8, 0.4), fg.SMC(), 4_000, 4, bias=bias)
        found, floor = distances(result, oracles[0], target)
        assert found <= 1.5 * floor

    def test_guided_proposals_keep_the_product(self):
        oracles = pair()
        target, _ = tilted(as_run(oracles, (2.0, -1.0)), oracles[0])
        result = run(oracles, (2.0, -1.0), fg.TDS(gradient="exact"), 4_000, 4)
        found, floor = distances(result, oracles[0], target)
        assert found <= 1.5 * floor

    @pytest.mark.parametrize("memory", [fg.Memory(merge=False), fg.Memory(limit=1, micro_batch=3)], ids=str)
    def test_settings_of_memory_change_nothing(self, memory):
        oracles = pair()
        one, two = (run(oracles, (2.0, -1.0), fg.SMC(), 50, 3, memory=m) for m in ("auto", memory))
        assert torch.equal(one.samples, two.samples)
        assert torch.equal(one.log_weights, two.log_weights)
        assert torch.equal(one.replay(7)[-1], one.samples[7])

    def test_an_exponent_of_one_changes_nothing(self):
        oracles = pair()
        alone = fg.sample(
            oracles[0].process, oracles[0].denoiser, oracles[0].reward, fg.SMC(), particles=50, seed=1, progress=False
        )
        same = run(oracles, (1.0, 0.0), fg.SMC(), 50, 1)
        assert torch.equal(alone.samples, same.samples)
        torch.testing.assert_close(alone.log_weights, same.log_weights, rtol=0, atol=1e-5)


class Normal(Mixture):
    """The exact denoiser of ``N(1, 4)``."""

    def posterior_mean(self, x, a, s):
        return 1.0 + 4.0 * a / (4.0 * a * a + s * s) * (x.double() - a)


PRODUCTS = {"annealed": (0.6, 0.0), "sharpened": (2.0, 0.0), "classifier-free": (1.5, -0.5), "experts": (0.8, 0.5)}


def moments(x, p):
    mean = float((p * x).sum() / p.sum())
    return mean, float((p * (x - mean) ** 2).sum() / p.sum())


def continuous(exponents):
    """Mean and variance of ``mixture^w · N(1, 4)^u``."""
    x = torch.linspace(-12, 12, 20_001, dtype=DTYPE)
    parts = zip(WEIGHTS, MEANS, VARIANCES, strict=True)
    mixture = sum(w / math.sqrt(v) * torch.exp(-0.5 * (x - m) ** 2 / v) for w, m, v in parts)
    return moments(x, torch.exp(exponents[0] * mixture.log() - exponents[1] * (x - 1) ** 2 / 8))


def as_drawn(process, exponents, corrected=True, points=401):
    """Mean and variance of the weighted law of finitely many steps, by transfer matrices as in `Mixture.law`."""
    experts = Mixture(process), Normal(process)
    std = process.prior_std / math.sqrt(sum(exponents) if corrected else 1.0)
    x = torch.linspace(-12, 12, points, dtype=DTYPE)
    p = torch.exp(-0.5 * (x / std) ** 2)
    for step in range(process.steps):
        a, s = process.alphas[step], process.sigmas_of_states[step]
        noises = [(x - a * e.posterior_mean(x, a, s)) / s for e in experts]
        total = sum(w * e for w, e in zip(exponents, noises, strict=True))
        if corrected:
            gap = total**2 - sum(w * e * e for w, e in zip(exponents, noises, strict=True))
            last = step + 1 == process.steps
            after = 0.0 if last else (a / process.alphas[step + 1] * process.sigmas_of_states[step + 1] / s) ** 2
            p = p * torch.exp(0.5 * (1 - after) * gap)
        of_x, of_x0, noise = process.sampler_steps[step]
        mean = of_x * x + of_x0 * (x - s * total) / a
        if noise == 0.0:
            return moments(mean, p)
        kernel = torch.exp(-0.5 * ((x - mean[:, None]) / noise) ** 2)
        p = p @ (kernel / kernel.sum(1, keepdim=True).clamp_min(1e-300))
        p /= p.sum()
    raise AssertionError("the last step has no noise")


class TestRealStates:
    @pytest.mark.parametrize("name", ["annealed", "classifier-free"])
    def test_many_steps_give_the_product(self, name):
        exponents = PRODUCTS[name]
        wanted, process = continuous(exponents), fg.GaussianProcess(1, steps=80, schedule="linear")
        found, drawn = (as_drawn(process, exponents, corrected=c) for c in (True, False))
        assert found == pytest.approx(wanted, abs=0.15)
        assert drawn != pytest.approx(wanted, abs=0.6)

    @named(PRODUCTS, "sharpened", "classifier-free")
    def test_the_samples_follow_the_steps_as_weighed(self, exponents):
        """64 groups of 256: mean and variance within 0.25, where groups disagree by 0.05 and 0.06."""
        process = fg.GaussianProcess(1, steps=40, schedule="linear", prediction="score")
        result = self.sample(process, exponents)
        found = moments(result.samples[:, 0].double(), torch.softmax(result.log_weights, 0))
        assert found == pytest.approx(as_drawn(process, exponents), abs=0.25)

    def test_any_prediction_is_combined_where_exponents_sum_to_one(self):
        found = []
        for prediction in ("eps", "v", "x0"):
            process = fg.GaussianProcess(1, steps=8, schedule="cosine", prediction=prediction)
            result = self.sample(process, (1.5, -0.5), particles=8, groups=2)
            found.append(torch.cat([result.samples[:, 0], result.log_weights.float()]))
            assert torch.equal(result.replay(7)[-1], result.samples[7])
        torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found[0], found[2], rtol=1e-3, atol=1e-3)

    def test_what_has_no_correction_is_refused(self):
        for settings, exponents, message in (
            ({"prediction": "v"}, (2.0, 0.0), "exponents: they sum to 2"),
            ({}, (1.0, -1.5), "exponents: of real states"),
            ({"schedule": "cosine"}, (2.0, 0.0), "takes 100 % of the noise"),
            ({"clip_x0": 1.0}, (2.0, 0.0), "clip_x0"),
            ({"sampler": "sde-dpmsolver++"}, (1.0, 0.0), "first order"),
        ):
            with pytest.raises(ValueError, match=message):
                self.sample(fg.GaussianProcess(1, steps=24, **settings), exponents)

    def sample(self, process, exponents, particles=256, groups=64):
        denoisers = [fg.models.wrap(e, batch_invariant=True) for e in (Mixture(process), Normal(process))]
        return fg.sample(
            process, Product(denoisers, exponents, corrected=True), lambda x0: torch.zeros(len(x0)),
            fg.SMC(value_steps=()), particles=particles, groups=groups, progress=False,
            memory=fg.Memory(call_rows=4096, ragged=True),
        )  # fmt: skip


def test_the_unknown_is_refused():
    process = fg.AutoregressiveProcess(2, 3)
    denoiser = Product([lambda x, t: torch.zeros(len(x), 2, 3)], [2.0], corrected=True)
    with pytest.raises(TypeError, match="MaskedProcess and GaussianProcess"):
        fg.sample(process, denoiser, lambda x0: x0.sum(1), fg.SMC(), progress=False)
    with pytest.raises(ValueError, match="remask"):
        fg.sample(fg.MaskedProcess(2, 3, remask=0.1), denoiser, lambda x0: x0.sum(1), fg.SMC(), progress=False)
