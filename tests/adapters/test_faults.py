"""What other samplers get wrong, one test each that fastguide does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import fastguide as fg
from fastguide import ops
from fastguide.adapters import das
from fastguide.adapters.fkd import FKD
from fastguide.adapters.tds import smc_FK

UNBIASED = ("systematic", "stratified", "multinomial", "residual")


def shares(log_weights: torch.Tensor) -> torch.Tensor:
    return torch.softmax(log_weights.double(), -1)


@pytest.mark.parametrize("rule", UNBIASED)
def test_fewer_draws_than_items_reach_the_last_items(rule):
    """An inverse CDF that stops at item k − 1 (TDS, DAS) never draws what comes after."""
    log_weights = torch.full((64,), -30.0)
    log_weights[-2:] = 0.0
    assert (ops.select(log_weights, 5, rule=rule, seed=1).ancestors >= 62).all()


@pytest.mark.parametrize("strategy", ["systematic", "residual"])
def test_log_z_counts_steps_that_do_not_resample(strategy):
    """In one copy of TDS log Z is off by log P at each of them."""
    torch.manual_seed(0)
    np.random.seed(0)
    potentials = 0.1 * torch.randn(5, 32)
    trace = smc_FK(
        lambda t, xtp1, extra_vals, P: (torch.zeros(P), extra_vals),  # noqa: N803 - their name
        lambda t, xtp1, xt, extra_vals: potentials[t],
        strategy, T=4, P=32, ess_threshold=0.1,
    )[5]  # fmt: skip
    found = (torch.logsumexp(trace, 1) - math.log(32)).sum()
    torch.testing.assert_close(found, torch.logsumexp(potentials.sum(0), 0) - math.log(32), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("potential", ["difference", "max", "sum", "max_difference"])
def test_a_window_that_ends_early_counts_the_reward_once(potential):
    """With BioEmu's, rewards weigh twice where the window ends before the last step."""
    torch.manual_seed(0)
    values = torch.randn(6, 16)
    steering = fg.Steering(fg.SMC(alpha=0.5, ess_threshold=0.0, potential=potential), particles=16)
    steering.begin(values[0])
    for step in range(1, 5):
        steering.weigh(values[min(step, 2)])  # no news after the second
        steering.select()
    steering.finish(values[5])
    steering.select()
    torch.testing.assert_close(steering.log_weights[0], values[5].double() / 0.5)
    windowed = fg.Steering(fg.SMC(alpha=0.5, ess_threshold=0.0, value_steps=(1, 2), potential=potential), particles=16)
    windowed.begin()
    for step in range(1, 5):
        windowed.weigh(values[step] if windowed.reads_values(step) else None)
        windowed.select()
    windowed.finish(values[5])
    windowed.select()
    torch.testing.assert_close(windowed.log_weights[0], values[5].double() / 0.5)


def test_a_collapsed_group_resamples_whatever_the_others_do():
    """BioEmu takes one decision for all groups, by the mean of their effective sample sizes."""
    log_weights = torch.zeros(8, 16)
    log_weights[3, 0] = 50.0
    alone = torch.arange(8) == 3
    np.random.seed(0)
    assert torch.equal(das.resampling_function("systematic", 0.5)(log_weights.clone())[1], alone)
    steering = fg.Steering(fg.SMC(), particles=16, groups=8)
    steering.begin(torch.zeros(128))
    steering.weigh(log_weights.reshape(-1))
    steady = (steering.select() == torch.arange(16)).all(1)
    assert torch.equal(~steady, alone)
    assert steering.state.log_weights[3].unique().numel() == 1


def test_every_step_keeps_the_ratio_of_its_proposal():
    """Boltz-2 weighs every third step, and forgets the p/q of the two between."""
    torch.manual_seed(0)
    ratios, rewards = torch.randn(6, 16), torch.randn(16)
    steering = fg.Steering(fg.SMC(ess_threshold=0.0, value_steps=(3,)), particles=16)
    steering.begin()
    for step in range(1, 6):
        steering.weigh(torch.randn(16) if steering.reads_values(step) else None, log_ratio=ratios[step - 1])
        steering.select()
    steering.finish(rewards, log_ratio=ratios[5])
    steering.select()
    torch.testing.assert_close(steering.log_weights[0], (ratios.sum(0) + rewards).double(), rtol=1e-6, atol=1e-6)


def masked(length: int = 6, vocab: int = 3, steps: int = 3) -> tuple[fg.MaskedProcess, torch.Tensor]:
    torch.manual_seed(0)
    return fg.MaskedProcess(length=length, vocab=vocab, steps=steps), torch.randn(length, vocab)


def test_no_call_has_more_rows_than_allowed_and_no_sample_is_thrown_away():
    """Boltz-2 ignores its cap on the rows of a call, and returns one of K samples."""
    process, table = masked()
    rows = []

    def denoiser(x, t):
        rows.append(len(x))
        return table.expand(len(x), -1, -1)

    found = fg.sample(
        process, denoiser, lambda x0: (x0 == 1).float().sum(1), fg.SMC(), particles=50,
        memory=fg.Memory(micro_batch=7, call_rows=7), progress=False,
    )  # fmt: skip
    assert max(rows) <= 7
    assert found.samples.shape[-2:] == (50, 6)


def test_even_weights_keep_every_particle_in_its_place():
    """Psi-Sampler applies the ancestors of an earlier step again where nothing is resampled, and drops the weights."""
    torch.manual_seed(0)
    steering = fg.Steering(fg.SMC(), particles=32)
    steering.begin(torch.zeros(32))
    steering.weigh(4 * torch.randn(32))
    assert not torch.equal(steering.select()[0], torch.arange(32))
    step = 0.1 * torch.randn(32, dtype=torch.float64)
    before = steering.log_weights.clone()
    steering.weigh(steering.state.values[0] + step)
    assert torch.equal(steering.select()[0], torch.arange(32))
    torch.testing.assert_close(steering.log_weights[0], before[0] + step)


@pytest.mark.parametrize("rule", UNBIASED)
def test_no_uniform_rounds_to_one(rule):
    """A float32 uniform does: smc_ddm draws item N, which is none, in 3 % of calls with 2²⁰ items."""
    log_weights = torch.zeros(2**20)
    for seed in range(6):
        drawn = ops.select(log_weights, 2**20 - 1, rule=rule, seed=seed).ancestors
        assert int(drawn.min()) >= 0
        assert int(drawn.max()) < 2**20


def test_small_weights_are_reached():
    """Feynman–Kac correctors clip weights at 1e-6: of 10⁶ particles with log-weights of deviation 3, half the mass."""
    log_weights = 3 * torch.randn(10**6, generator=torch.Generator().manual_seed(0))
    w = shares(log_weights)
    small = w < 1e-6
    mass = float(w[small].sum())
    assert mass > 0.05
    for rule in UNBIASED:
        drawn = ops.select(log_weights, rule=rule, seed=2).ancestors.long()
        # Standard error of the share at most 5e-4 (multinomial): 6 of them, a false alarm once in 10⁸.
        assert abs(float(small[drawn].double().mean()) - mass) < 3e-3


def test_a_child_is_scored_with_its_fresh_tokens():
    """FK steering's text part, SVDD and the tutorial's code complete a child with the mask of its parent."""
    process, table = masked()
    states, looks = [], []

    class Spy(fg.PosteriorMean):
        def look(self, at):
            states.append(at.x.clone())
            looks.append(super().look(at))
            return looks[-1]

    fg.sample(
        process, lambda x, t: table.expand(len(x), -1, -1), lambda x0: (x0 == 0).float().sum(1), fg.SMC(),
        value=Spy(), particles=64, progress=False,
    )  # fmt: skip
    assert len(states) >= 2
    assert any(((x < 3).any(1) & (x == 3).any(1)).any() for x in states)
    for x, x0 in zip(states, looks, strict=True):
        assert torch.equal(x0[x < 3], x[x < 3])


def test_the_soft_mean_has_alpha_inside():
    """FK steering's text part multiplies a log-mean-exp of K rewards by λ: 3.57 where 8.61 is right."""
    rewards = torch.tensor([[0.0, 0.2, 0.4, 1.0]], dtype=torch.float64)
    alpha = 0.1
    value = fg.PosteriorMean("sample", draws=4).values(torch.zeros(1, 4, 2), lambda x: rewards, alpha)
    wanted = torch.logsumexp(rewards / alpha, 1) - math.log(4)
    torch.testing.assert_close(value.double() / alpha, wanted, rtol=1e-6, atol=1e-6)
    wrong = (torch.logsumexp(rewards, 1) - math.log(4)) / alpha
    assert float(wanted - wrong) > 1


def test_a_misspelt_option_is_refused():
    """FK steering's own text script says ``adaptive_resampling_at_end``, which disappears in ``**kwargs`` there."""
    with pytest.raises(TypeError, match="did you mean 'adaptive_resample_at_end'"):
        FKD(
            potential_type="diff", lmbda=1.0, num_particles=2, adaptive_resampling=False, resample_frequency=1,
            resampling_t_start=0, resampling_t_end=1, time_steps=2, reward_fn=len, adaptive_resampling_at_end=False,
        )  # fmt: skip


def test_exact_gradients_score_open_positions_and_real_tokens_only():
    """discrete_guidance scores all positions and the mask: 1,672 rows of 76 · 22 where 38 · 20 have a rate."""
    process, table = masked(length=76, vocab=20, steps=1)
    x = torch.arange(76)[None] % 20
    x[:, ::2] = 20
    rows = []

    def reward(x0):
        rows.append(len(x0))
        return (x0 == 1).float().sum(1)

    fg.sample(
        process, lambda x, t: table.expand(len(x), -1, -1), reward, fg.TDS(gradient="exact"), particles=1, x_init=x,
        progress=False,
    )  # fmt: skip
    assert 38 * 19 <= sum(rows) <= 38 * 20


@pytest.mark.parametrize("rule", UNBIASED)
def test_large_ratios_are_told_apart(rule):
    """discrete_guidance clamps ratios at e^80, and FK steering weights at 1e10: beyond, all are equal."""
    assert (ops.select(torch.tensor([90.0, 400.0, 100.0, 81.0]), rule=rule, seed=3).ancestors == 1).all()
    near = torch.tensor([1e4, 1e4 + math.log(3)], dtype=torch.float64)
    drawn = ops.select(near, 4000, rule=rule, seed=3).ancestors
    # Multinomial: 27 is the standard error of 3,000; 5 of them.
    assert abs(int((drawn == 1).sum()) - 3000) <= 140
