"""Look-ahead values against the exact value of an enumerable process."""

from __future__ import annotations

import pytest
import torch

import fastguide as fg
from fastguide.memory import Memory
from fastguide.processes import Constraints
from fastguide.run import Run
from fastguide.states import rewards_of
from fastguide.values.draws import soft_mean, state_seeds
from tests.oracle.masked import TabularMasked
from tests.oracle.soft import Table
from tests.oracle.uniform import TabularDiscrete

ALPHA = 0.7


@pytest.fixture(scope="module")
def oracle():
    return TabularMasked()


def values_of(oracle, value, x, step, *, alpha=ALPHA, reward=None, bias=None):
    """The values of states ``[n, L]`` after ``step`` steps, as the loop computes them."""
    run = Run(
        oracle.process, fg.models.wrap(oracle.denoiser, batch_invariant=True), reward or oracle.reward,
        fg.SVDD(alpha=alpha), value=value, particles=len(x), groups=1, condition=None, constraints=Constraints(bias=bias),
        decode=None, seed=0, memory=Memory(), device=torch.device("cpu"),
    )  # fmt: skip
    frontier = run.predictor.distinct(x, torch.zeros(len(x), dtype=torch.int64), step, None, torch.arange(len(x)))
    looked = run.predictor.look_ahead(frontier, value)
    found = value.values(looked, lambda x0: rewards_of(run.scene.problems, frontier.problem, x0, 2), alpha)
    return found[frontier.inverse]


@pytest.mark.parametrize("step", [0, 1, 3])
def test_monte_carlo_is_the_value_in_the_limit(oracle, step):
    """2,000 rollouts of every state: within 0.15, five standard errors of the largest weights' mean."""
    exact = oracle.soft_values(ALPHA)[step]
    reachable = torch.isfinite(exact)
    found = values_of(oracle, fg.MonteCarlo(rollouts=2_000), oracle.states[reachable], step)
    assert float((found - exact[reachable]).abs().max()) < 0.15
    assert float((found - exact[reachable]).abs().mean()) < 0.04


@pytest.mark.parametrize(("step", "depth"), [(0, 1), (0, 3), (2, 1)])
def test_rollouts_of_a_depth_look_at_the_predictions_there(oracle, step, depth):
    """2,000 rollouts of every state; the tables by the exact kernels. Bounds as above."""
    predicted = oracle.posterior_means()[step + depth]
    exact = (predicted / ALPHA).exp()
    for k in reversed(range(step, step + depth)):
        exact = oracle.expect(exact, k)
    exact = ALPHA * exact.log()
    found = values_of(oracle, fg.MonteCarlo(rollouts=2_000, depth=depth), oracle.states, step)
    assert float((found - exact).abs().max()) < 0.15
    assert float((found - exact).abs().mean()) < 0.04


def test_a_depth_beyond_the_end_is_none(oracle):
    for step in (0, 2):
        deep, whole = (values_of(oracle, fg.MonteCarlo(5, depth=d), oracle.states, step) for d in (9, None))
        assert torch.equal(deep, whole)


def test_at_alpha_zero_the_best_state_of_that_depth_counts(oracle):
    k, predicted = oracle.kernel(1), oracle.posterior_means()[2]
    possible = k.probability > 0
    best = torch.full_like(predicted, -torch.inf).scatter_reduce(
        0, k.source[possible], predicted[k.to[possible]], "amax"
    )
    found = values_of(oracle, fg.MonteCarlo(rollouts=500, depth=1), oracle.states, 1, alpha=0.0)
    assert bool((found <= best).all())
    assert float((found == best).double().mean()) > 0.9


def test_its_exponential_is_unbiased_at_any_number_of_rollouts(oracle):
    """The mean of exp(v / alpha) over 2,000 seeds of 2 rollouts is that of the exact value within 4 standard errors."""
    exact = (oracle.soft_values(ALPHA)[0] / ALPHA).exp()[oracle.row(oracle.process.prior(1))]
    start = oracle.process.prior(1)
    found = torch.cat([values_of(oracle, fg.MonteCarlo(rollouts=2, seed=s), start, 0) for s in range(600)])
    weights = (found / ALPHA).exp()
    assert abs(float(weights.mean() - exact)) < 4 * float(weights.std()) / 600**0.5


def test_draws_from_the_prediction_are_its_product_law(oracle):
    """In the last step but none the process draws every open position from the prediction: its value is that of the draws."""
    exact = oracle.soft_values(ALPHA)[oracle.steps - 1]
    found = values_of(oracle, fg.PosteriorMean("sample", draws=4_000), oracle.states, oracle.steps - 1)
    assert float((found - exact).abs().max()) < 0.12
    assert float((found - exact).abs().mean()) < 0.03


@pytest.mark.parametrize(
    "settings",
    [{}, {"bias": torch.tensor([[0.5, -torch.inf, 0.0], [0.0, 0.0, 1.0], [0.0, -2.0, 0.0]]), "options": {"top_k": 2}},
     {"a": lambda t: 1 - 0.9 * t, "options": {"prediction": "score"}}],
    ids=["logits", "shaped", "scores"],
)  # fmt: skip
def test_draws_from_a_prediction_without_a_mask_are_its_product_law(settings):
    """As above; before the last step every position is drawn anew."""
    oracle = TabularDiscrete(**settings)
    exact = oracle.soft_values(ALPHA)[oracle.steps - 1]
    value = fg.PosteriorMean("sample", draws=4_000)
    found = values_of(oracle, value, oracle.states, oracle.steps - 1, bias=settings.get("bias"))
    assert float((found - exact).abs().max()) < 0.12
    assert float((found - exact).abs().mean()) < 0.03


def test_soft_tokens_give_the_mean_over_all_draws(oracle):
    """In the last step but none, of a multilinear reward: ``E[r(x0) | x]``, which the soft value is at a large alpha."""
    exact = oracle.soft_values(1e6)[oracle.steps - 1]
    found = values_of(oracle, fg.PosteriorMean("soft"), oracle.states, oracle.steps - 1, reward=Table(oracle))
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-5)


def test_soft_tokens_are_of_draws_as_run():
    oracle = TabularMasked(temperature=0.6, options={"top_k": 2})
    exact = oracle.soft_values(1e6)[oracle.steps - 1]
    found = values_of(oracle, fg.PosteriorMean("soft"), oracle.states, oracle.steps - 1, reward=Table(oracle))
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-5)


def test_soft_is_the_mean_of_real_states():
    process = fg.GaussianProcess(1, steps=4, prediction="x0")

    def run(decode):
        return fg.sample(
            process, lambda x, t: 0.5 * x, lambda x0: x0[:, 0], fg.SMC(), value=fg.PosteriorMean(decode), particles=20,
            progress=False,
        )  # fmt: skip

    assert torch.equal(run("soft").samples, run("argmax").samples)


VALUES = [
    fg.PosteriorMean("sample", draws=3),
    fg.PosteriorMean("soft"),
    fg.MonteCarlo(rollouts=3),
    fg.MonteCarlo(3, depth=1),
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
@pytest.mark.parametrize("guidance", [fg.SMC(alpha=ALPHA), fg.SVDD(branch=3)], ids=repr)
def test_a_value_is_a_function_of_the_state(oracle, value, guidance):
    denoiser = fg.models.wrap(oracle.denoiser, batch_invariant=True)

    def run(**options):
        settings = {"particles": 40, "groups": 2, "seed": [3, 4], "progress": False, **options}
        return fg.sample(oracle.process, denoiser, Table(oracle), guidance, value=value, **settings)

    whole = run()
    for memory in (Memory(merge=False), Memory(limit=1), Memory(micro_batch=7), Memory(remember=False)):
        assert torch.equal(run(memory=memory).samples, whole.samples)
    assert torch.equal(run(groups=1, seed=[4]).samples, whole.samples[40:])


@pytest.mark.parametrize("depth", [None, 1, 2])
def test_rows_are_counted(oracle, depth):
    result = fg.sample(
        oracle.process, fg.models.wrap(oracle.denoiser, batch_invariant=True), oracle.reward, fg.SMC(),
        value=fg.MonteCarlo(rollouts=5, depth=depth), particles=8, memory=Memory(merge=False), progress=False,
    )  # fmt: skip
    steps = oracle.steps
    calls = [min(left, depth or left) for left in range(steps)]
    assert result.denoiser_rows == 8 * (steps + 5 * sum(calls))


class TestSeeds:
    def test_are_of_state_step_and_seed(self):
        x = torch.randint(0, 4, (500, 6), generator=torch.Generator().manual_seed(0))
        distinct = len(torch.unique(x, dim=0))
        seeds = [state_seeds(x, step, seed) for step, seed in ((0, 0), (1, 0), (0, 1))]
        assert len(torch.unique(torch.cat(seeds))) == 3 * distinct
        assert torch.equal(state_seeds(x[7:9], 0, 0), seeds[0][7:9])
        assert bool((seeds[0] >= 0).all())

    def test_of_real_states_are_of_their_bits(self):
        x = torch.tensor([[0.0, 1.0], [0.0, 1.0 + 2**-23], [0.0, 1.0]])
        first, second, third = state_seeds(x, 0, 0).tolist()
        assert first == third != second


def test_the_soft_mean():
    rewards = torch.tensor([[1.0, 2.0], [-torch.inf, 0.0]], dtype=torch.float64)
    expected = 0.5 * torch.log((rewards / 0.5).exp().mean(1))
    torch.testing.assert_close(soft_mean(rewards, 0.5), expected)
    assert soft_mean(rewards, 0.0).tolist() == [2.0, 0.0]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: fg.PosteriorMean("mean"), "decode"),
        (lambda: fg.PosteriorMean(draws=2), "draws"),
        (lambda: fg.PosteriorMean("soft", draws=2), "draws"),
        (lambda: fg.PosteriorMean("sample", draws=0), "draws"),
        (lambda: fg.MonteCarlo(rollouts=0), "rollouts"),
        (lambda: fg.MonteCarlo(depth=0), "depth"),
    ],
)
def test_settings_are_checked(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_a_process_without_a_law_of_clean_samples_is_named():
    process = fg.GaussianProcess(1, steps=3, prediction="x0")
    with pytest.raises(ValueError, match="GaussianProcess is no law of clean samples"):
        fg.sample(process, lambda x, t: x, lambda x0: x0[:, 0], fg.SMC(), value=fg.PosteriorMean("sample"), particles=4)


def test_what_has_no_soft_tokens_says_so(oracle):
    def run(process, reward):
        denoiser = fg.models.wrap(lambda x, t: torch.zeros(len(x), 3, 3))
        return fg.sample(process, denoiser, reward, fg.SMC(), value=fg.PosteriorMean("soft"), particles=4)

    with pytest.raises(TypeError, match="override soft"):
        run(oracle.process, oracle.reward)
    with pytest.raises(ValueError, match="UniformProcess tells no probabilities"):
        run(fg.UniformProcess(length=3, vocab=3, steps=3), oracle.reward)


def test_a_network_sees_soft_tokens_in_fixed_calls(oracle):
    rows = []

    def reward(x0):
        rows.append(len(x0))
        return (x0.double() if x0.ndim == 2 else x0).flatten(1).sum(1)

    reward = fg.rewards.wrap(reward, differentiable=True)
    result = fg.sample(
        oracle.process, oracle.denoiser, reward, fg.SMC(), value=fg.PosteriorMean("soft"), particles=100, progress=False,
        memory=fg.Memory(call_rows=16, merge=False),
    )  # fmt: skip
    assert set(rows) == {16}
    assert result.reward_rows == 100 * (oracle.steps + 1)
