"""Estimates of how the value changes, each against its own definition; and what is refused."""

from __future__ import annotations

import re

import pytest
import torch
from torch.nn import functional as F

import fastguide as fg
from fastguide.guidance.gradients import GradientProposal
from tests.oracle.gaussian import Mixture, reward
from tests.oracle.masked import TabularMasked
from tests.oracle.soft import Table


def recorded(process, denoiser, reward, gradient=None, scale=1.0, **options):
    """Run a few guided particles; return the states and the shifts of each step."""
    seen = []

    class Recorded(GradientProposal):
        def shift(self, states):
            found = super().shift(states)
            seen.append((states, found))
            return found

    class Guidance(fg.ClassifierGuidance):
        @property
        def proposal(self):
            return Recorded(self.alpha, self.gradient, self.scale, self.clip, corrected=False)

    clip = options.pop("clip", None)
    guidance = Guidance(alpha=0.5, gradient=gradient, scale=scale, clip=clip)
    result = fg.sample(process, denoiser, reward, guidance, particles=100, progress=False, **options)
    return seen, result


@pytest.fixture(scope="module")
def oracle():
    return TabularMasked()


def log_probs(oracle, x):
    return oracle.draws.log().float()[oracle.row(x)]


class TestTokens:
    def test_decoded_is_the_difference_of_soft_rewards(self, oracle):
        """A multilinear reward is linear in each position: its gradient tells the whole difference."""
        seen, _ = recorded(oracle.process, oracle.denoiser, Table(oracle))
        for states, shift in seen:
            opened = (states.x == oracle.mask)[..., None]
            known = F.one_hot(states.x, 4)[..., :3].float()
            soft = torch.where(opened, log_probs(oracle, states.x).exp(), known)
            for at in range(3):
                for token in range(3):
                    changed = soft.clone()
                    changed[:, at] = F.one_hot(torch.tensor(token), 3)
                    delta = Table(oracle).soft(changed) - Table(oracle).soft(soft)
                    expected = torch.where(opened[:, at, 0], delta / 0.5, 0.0).float()
                    torch.testing.assert_close(shift[:, at, token], expected, rtol=1e-4, atol=1e-5)

    def test_exact_is_the_difference_of_rewards(self, oracle):
        seen, _ = recorded(oracle.process, oracle.denoiser, Table(oracle), "exact", scale=2.0)
        for states, shift in seen:
            x0 = states.estimate()
            for at in range(3):
                for token in range(3):
                    changed = x0.clone()
                    changed[:, at] = token
                    delta = torch.where(states.x[:, at] == 3, oracle.reward(changed) - oracle.reward(x0), 0.0)
                    torch.testing.assert_close(shift[:, at, token].double(), 4.0 * delta, rtol=1e-5, atol=1e-6)
        assert len(seen) == 4

    def test_exact_needs_no_gradient_and_takes_a_decoded_reward(self, oracle):
        """−inf in the neighbourhood counts as the worst that is allowed: a guided proposal forbids nothing."""
        constraint = fg.rewards.each(lambda text: -float("inf") if text.startswith("c") else text.count("b") * 1.0)
        seen, result = recorded(
            oracle.process,
            oracle.denoiser,
            constraint,
            "exact",
            decode=lambda x0: ["".join("abc"[t] for t in row) for row in x0],
        )
        assert all(bool(torch.isfinite(shift).all()) for _, shift in seen)
        assert float(result.rewards[result.rewards.isfinite()].mean()) > 1.5

    def test_input_goes_through_the_denoiser(self):
        """A denoiser linear in the one-hot state: Δ against differences of the state."""
        generator = torch.Generator().manual_seed(0)
        weight = torch.randn(12, 9, generator=generator)
        oracle = TabularMasked()

        class Soft(fg.models.Denoiser):
            differentiable = True

            def __call__(self, x, t, state=None, rows=None):
                soft = x if x.is_floating_point() else F.one_hot(x, 4).float()
                return fg.models.Prediction((soft.flatten(1) @ weight).view(-1, 3, 3))

        seen, _ = recorded(oracle.process, Soft(), Table(oracle), "input")
        states, shift = seen[0]

        def value(x):
            soft = torch.softmax((x.flatten(1).double() @ weight.double()).view(-1, 3, 3), -1)
            return Table(oracle).soft(soft)

        x = F.one_hot(states.x, 4).double()
        assert len(x) == 1  # all masks
        for at in range(3):
            for token in range(3):
                step = torch.zeros(1, 3, 4, dtype=torch.float64)
                step[0, at, token], step[0, at, 3] = 1e-4, -1e-4
                slope = (value(x + step) - value(x - step)) / 2e-4
                torch.testing.assert_close(shift[0, at, token].double(), slope[0] / 0.5, rtol=1e-3, atol=1e-4)

    def test_truncated_tokens_weigh_nothing_in_the_soft_sample(self):
        oracle = TabularMasked(options={"top_k": 1})
        seen, _ = recorded(oracle.process, oracle.denoiser, Table(oracle))
        states, _ = seen[0]
        p = states.scene.bound.log_probs(states.x, states.output, group=states.group).exp()
        torch.testing.assert_close(p, oracle.draws.float()[oracle.row(states.x)])

    def test_padding_is_cut_off(self):
        """Of two positions, the reward sees two, and the third has no shift."""
        process = fg.MaskedProcess(length=3, vocab=3, steps=3)
        matrix = fg.values.compiled.PositionWeightMatrix(torch.arange(6.0).view(2, 3))
        wide = fg.values.compiled.PositionWeightMatrix(torch.arange(9.0).view(3, 3))
        seen, _ = recorded(process, lambda x, t: torch.zeros(len(x), 3, 3), [matrix, wide], groups=2, lengths=[2, 3])
        states, shift = seen[0]
        short = states.problem == 0
        assert not shift[short][:, 2].any()
        assert shift[~short][:, 2].any()
        torch.testing.assert_close(shift[short][0, 0], torch.tensor([-2.0, 0.0, 2.0]))

    def test_is_the_same_in_any_micro_batch(self, oracle):
        def run(memory):
            return fg.sample(
                oracle.process, oracle.denoiser, Table(oracle), fg.TDS(alpha=0.1), particles=100, memory=memory,
                progress=False,
            )  # fmt: skip

        first, second = run(fg.Memory()), run(fg.Memory(limit=1, micro_batch=7, merge=False))
        assert torch.equal(first.samples, second.samples)
        assert torch.equal(first.log_weights, second.log_weights)
        assert torch.equal(first.replay(3)[-1], first.samples[3])


class TestRealStates:
    def test_through_is_the_derivative_of_the_look_ahead(self):
        process = fg.GaussianProcess(1, steps=8, schedule="cosine")
        oracle = Mixture(process)
        seen, _ = recorded(process, oracle, reward)
        for states, shift in seen[:-1]:
            k = states.step
            a, s, noise = process.alphas[k], process.sigmas_of_states[k], process.sampler_steps[k].noise

            def value(x, a=a, s=s):
                return reward(oracle.posterior_mean(x, a, s))

            x = states.x.double()
            slope = (value(x + 1e-4) - value(x - 1e-4)) / 2e-4
            torch.testing.assert_close(shift[:, 0].double(), noise**2 * slope / 0.5, rtol=1e-2, atol=2e-2)
        assert not seen[-1][1].any()  # a step without noise is not guided

    def test_decoded_is_the_same_for_normal_data(self):
        process = fg.GaussianProcess(2, steps=5, prediction="x0", schedule="cosine")

        def denoiser(x, t):
            return process.alphas[int(process.step_of(t[:1]))] * x

        def square(x0):
            return -x0.square().sum(1)

        runs = [recorded(process, denoiser, square, gradient) for gradient in ("through", "decoded")]
        for (_, through), (_, decoded) in zip(*(seen for seen, _ in runs), strict=True):
            torch.testing.assert_close(through, decoded, rtol=1e-4, atol=1e-5)

    def test_multistep_samplers_are_guided_too(self):
        process = fg.GaussianProcess(1, steps=8, schedule="cosine", sampler="sde-dpmsolver++")
        seen, result = recorded(process, Mixture(process), reward)
        assert all(shift.any() for _, shift in seen[:-1])
        plain = fg.sample(process, Mixture(process), reward, fg.BestOfN(), particles=100, progress=False)
        assert float(result.rewards.mean()) > float(plain.rewards.mean())

    def test_a_gradient_is_clipped_to_its_norm(self):
        process = fg.GaussianProcess(2, steps=5, prediction="x0", schedule="cosine")
        seen, _ = recorded(process, lambda x, t: 0.5 * x, lambda x0: -100.0 * x0.square().sum(1), clip=0.25)
        noise = process.sampler_steps[0].noise
        torch.testing.assert_close(seen[0][1].norm(dim=1), torch.full((100,), 0.25 * noise**2 / 0.5))


class TestErrors:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"gradient": "through-input"}, "gradient: unknown"),
            ({"scale": -1.0}, "scale: expected"),
            ({"clip": 0.0}, "clip: expected"),
            ({"alpha": 0.0}, "alpha: 0 leaves"),
        ],
    )
    @pytest.mark.parametrize("kind", [fg.TDS, fg.ClassifierGuidance])
    def test_of_settings(self, kind, settings, message):
        with pytest.raises(ValueError, match=message):
            kind(**settings)

    def run(self, oracle, reward, gradient=None, **options):
        return fg.sample(
            options.pop("process", oracle.process), options.pop("denoiser", oracle.denoiser), reward,
            fg.TDS(gradient=gradient), particles=4, progress=False, **options,
        )  # fmt: skip

    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"gradient": "input"}, TypeError, "not differentiable, use"),
            ({"gradient": "through"}, ValueError, "not among those of this process: decoded, exact, input"),
            ({"decode": lambda x0: x0}, TypeError, "decode: the reward 'reward' sees what decode= makes"),
            (
                {"gradient": lambda states: states.x.float()},
                ValueError,
                "gradient: expected shape [4, 3, 3], got [4, 3]",
            ),
            ({"process": fg.MaskedProcess(3, 3, steps=4, temperature=0.0)}, ValueError, "temperature 0"),
            ({"gradient": lambda s: s.output * torch.nan}, ValueError, "nan or infinite"),
        ],
    )
    def test_of_tokens(self, oracle, options, error, message):
        with pytest.raises(error, match=re.escape(message)):
            self.run(oracle, Table(oracle), **options)

    def test_of_rewards_without_gradients(self, oracle):
        with pytest.raises(TypeError, match=r"reward 'plain': it is not differentiable; override soft\(x0\)"):
            self.run(oracle, fg.rewards.wrap(oracle.reward, name="plain"))
        flat = fg.rewards.wrap(lambda x0: x0.detach().sum((1, 2)) if x0.ndim == 3 else x0.sum(1), differentiable=True)
        with pytest.raises(TypeError, match="no gradient flows from its value"):
            self.run(oracle, flat)

    def test_of_processes_that_cannot_be_guided(self, oracle):
        process = fg.GaussianProcess(1, steps=4, sampler="ddim", eta=0.0)
        for guidance in (fg.TDS(), fg.ClassifierGuidance()):
            with pytest.raises(ValueError, match="draws no noise at any step"):
                fg.sample(process, Mixture(process), reward, guidance, particles=4, progress=False)

    def test_of_processes_whose_gradients_have_no_names(self):
        """A function of the states serves any process of tokens."""
        process = fg.UniformProcess(length=3, vocab=3, steps=4)
        matrix = fg.values.compiled.PositionWeightMatrix(torch.eye(3))

        def run(gradient):
            guidance = fg.ClassifierGuidance(alpha=0.1, gradient=gradient)
            return fg.sample(
                process, lambda x, t: torch.zeros(*x.shape, 3), matrix, guidance, particles=100, progress=False
            )

        with pytest.raises(TypeError, match="gradient: none is known for UniformProcess"):
            run("decoded")
        assert float(run(lambda states: matrix.scores.expand(len(states.x), 3, 3)).rewards.mean()) > 2.0

    def test_of_denoisers_without_gradients(self):
        process = fg.GaussianProcess(1, steps=4)
        with pytest.raises(TypeError, match=r'no gradient flows through it.*use gradient="decoded"'):
            fg.sample(process, lambda x, t: x.detach(), reward, fg.TDS(), particles=4, progress=False)
