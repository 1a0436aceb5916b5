"""The oracle itself, against brute force and against the process it describes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

import fastguide as fg
from tests.oracle.masked import DTYPE, TabularMasked, noise_floor, total_variation


@pytest.fixture(scope="module", params=[(3, 3, 4), (2, 4, 2), (4, 2, 3)], ids=str)
def oracle(request):
    length, vocab, steps = request.param
    return TabularMasked(length, vocab, steps, temperature=0.7, bias=torch.linspace(-1, 1, vocab).expand(length, -1))


def test_denoiser_is_the_conditional_marginal(oracle):
    joint = oracle.log_joint.exp()
    mask = oracle.mask
    for state, conditional in zip(oracle.states.tolist(), oracle.logits_of.exp(), strict=True):
        for at in range(oracle.length):
            mass = torch.zeros(oracle.vocab, dtype=DTYPE)
            for x0 in itertools.product(range(oracle.vocab), repeat=oracle.length):
                if all(s in (mask, x) for i, (s, x) in enumerate(zip(state, x0, strict=True)) if i != at):
                    mass[x0[at]] += joint[x0]
            torch.testing.assert_close(conditional[at], mass / mass.sum())


def test_kernel_is_a_product_over_positions(oracle):
    reveal = oracle.process.reveal_probabilities[0]
    kernel = oracle.kernel(0)
    table = torch.zeros(len(oracle.states), len(oracle.states), dtype=DTYPE)
    table[kernel.source, kernel.to] = kernel.probability
    torch.testing.assert_close(table.sum(1), torch.ones(len(table), dtype=DTYPE))
    for i, j in itertools.product(range(0, len(table), 7), range(len(table))):
        expected = 1.0
        for at, (a, b) in enumerate(zip(oracle.states[i].tolist(), oracle.states[j].tolist(), strict=True)):
            if a != oracle.mask:
                expected *= a == b
            else:
                expected *= 1 - reveal if b == oracle.mask else reveal * float(oracle.draws[i, at, b])
        assert math.isclose(float(table[i, j]), expected, abs_tol=1e-15)


def test_one_step_draws_all_positions_independently():
    oracle = TabularMasked(steps=1)
    marginals = oracle.draws[-1]
    product = torch.einsum("a,b,c->abc", *marginals).flatten()
    torch.testing.assert_close(oracle.law(), product)
    assert total_variation(product, oracle.log_joint.exp().flatten()) > 0.1


def test_many_steps_approach_the_joint_table():
    oracle = TabularMasked(steps=400)
    assert total_variation(oracle.law(), oracle.log_joint.exp().flatten()) < 2e-3


def test_value_of_the_start_is_the_log_normalizer(oracle):
    for alpha in (0.3, 2.0):
        values = oracle.soft_values(alpha)
        assert math.isclose(float(values[0][-1]) / alpha, oracle.target(alpha)[1], abs_tol=1e-9)
        assert torch.equal(values[-1][oracle.clean], oracle.rewards.flatten())


def test_soft_optimal_policy_samples_the_target(oracle):
    alpha = 0.5
    values = oracle.soft_values(alpha)
    law = oracle.start()
    for step in range(oracle.steps):
        k = oracle.kernel(step)
        tilt = torch.where(k.probability > 0, ((values[step + 1][k.to] - values[step][k.source]) / alpha).exp(), 0.0)
        law = torch.zeros_like(law).index_add(0, k.to, law[k.source] * k.probability * tilt)
    torch.testing.assert_close(law[oracle.clean], oracle.target(alpha)[0])


def test_svdd_law_of_two_children_by_hand(oracle):
    alpha = 0.5
    one_step = TabularMasked(oracle.length, oracle.vocab, 1)
    p, w = one_step.law(), (one_step.rewards.flatten() / alpha).exp()
    pairs = p[:, None] * p * w[:, None] / (w[:, None] + w)
    law = one_step.svdd_law(one_step.posterior_means(), 2, alpha)
    torch.testing.assert_close(law, 2 * pairs.sum(1))
    best = torch.where(w[:, None] > w, p[:, None] * p, 0.0).sum(1) * 2 + p**2
    torch.testing.assert_close(one_step.svdd_law(one_step.posterior_means(), 2, 0.0), best)


def test_svdd_law_goes_to_the_target_with_exact_values_and_many_children():
    oracle = TabularMasked(2, 3, 3)
    alpha = 0.5
    values, (target, _) = oracle.soft_values(alpha), oracle.target(alpha)
    distance = [total_variation(oracle.svdd_law(values, m, alpha), target) for m in (1, 4, 16, 64)]
    assert distance == sorted(distance, reverse=True)
    assert distance[-1] < 0.3 * distance[-2]  # the bias is of order 1 / M
    torch.testing.assert_close(oracle.svdd_law(values, 1, alpha), oracle.law())


def test_largest_table_is_enumerable():
    oracle = TabularMasked(6, 4, 3)
    target, log_z = oracle.target(1.0)
    assert math.isclose(float(target.sum()), 1.0, abs_tol=1e-9)
    assert math.isclose(float(oracle.soft_values(1.0)[0][-1]), log_z, abs_tol=1e-9)


def test_noise_floor_falls_as_the_root_of_the_draws():
    p, _ = TabularMasked().target(1.0)
    assert math.isclose(noise_floor(p, 100) / noise_floor(p, 10_000), 10.0, rel_tol=0.05)


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_the_process_draws_from_the_law(temperature):
    """20,000 draws over 27 states: TV above 1.5 times its expectation has probability below 1e-6."""
    bias = torch.tensor([[0.5, -torch.inf, 0.0], [0.0, 0.0, 1.0], [0.0, -2.0, 0.0]])
    oracle = TabularMasked(temperature=temperature, bias=bias)
    result = fg.sample(
        oracle.process,
        oracle.denoiser,
        oracle.reward,
        fg.BestOfN(alpha=0.0),
        particles=20_000,
        bias=bias,
        progress=False,
    )
    law = oracle.law()
    assert total_variation(oracle.frequencies(result.samples, result.log_weights), law) < 1.5 * noise_floor(law, 20_000)
