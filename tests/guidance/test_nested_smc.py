"""Nested SMC by hand."""

from __future__ import annotations

import math

import torch

import fastguide as fg


def weighed(guidance, parents, children, **options):
    s = fg.Steering(guidance, particles=len(parents), **options)
    s.begin(torch.tensor(parents))
    s.weigh(torch.tensor(children))
    return s, s.select()[0]


def test_weight_is_the_mean_of_the_children():
    guidance = fg.NestedSMC(alpha=0.5, branch=3, ess_threshold=0.0)
    s, chosen = weighed(guidance, [0.3, 0.1], [[1.0, 0.0, 0.5], [0.2, 0.2, 0.2]])
    expected = [math.log(sum(math.exp(2 * v) for v in row) / 3) for row in ([1.0, 0.0, 0.5], [0.2, 0.2, 0.2])]
    torch.testing.assert_close(s.log_weights[0], torch.tensor(expected, dtype=torch.float64))
    assert (chosen // 3).tolist() == [0, 1]
    assert s.state.values[0].tolist() == [torch.tensor([1.0, 0.0, 0.5])[chosen[0]].item(), torch.tensor(0.2).item()]


def test_copies_of_a_parent_draw_children_of_their_own():
    particles, branch = 400, 4
    values = torch.full((particles, branch), -1e6)
    values[7] = 0.0
    s, chosen = weighed(fg.NestedSMC(branch=branch), [0.0] * particles, values.tolist())
    assert bool(s.state.resampled[0])
    assert set((chosen // branch).tolist()) == {7}
    counts = torch.bincount(chosen % branch, minlength=branch)
    # Multinomial over four equal children: 100 each, standard deviation 8.7; 5 of them have probability below 1e-5.
    assert bool(((counts - 100).abs() < 44).all())


def test_parents_and_children_share_no_random_numbers():
    """A group's first parent is drawn by the same words as the first slot's child, were they not kept apart."""
    seeds = torch.arange(4_000)
    s = fg.Steering(
        fg.NestedSMC(branch=2, ess_threshold=1.0, rule="multinomial"), particles=2, groups=4_000, seed=seeds
    )
    s.begin(torch.zeros(8_000))
    s.weigh(torch.tensor([[0.0, 0.1], [0.1, 0.2]]).repeat(4_000, 1))
    chosen = s.select()
    parent, child = (chosen[:, 0] // 2).double(), (chosen[:, 0] % 2).double()
    # Correlation of 4,000 independent pairs: standard deviation 0.016.
    assert abs(float(torch.corrcoef(torch.stack([parent, child]))[0, 1])) < 0.08


def test_a_parent_without_a_child_has_weight_zero():
    guidance = fg.NestedSMC(branch=2, ess_threshold=0.0)
    s, _ = weighed(guidance, [0.0, 0.0], [[-torch.inf, -torch.inf], [-torch.inf, 1.0]])
    torch.testing.assert_close(s.log_weights[0], torch.tensor([-torch.inf, 1.0 - math.log(2)], dtype=torch.float64))
    s.finish(torch.tensor([[5.0, 5.0], [2.0, 2.0]]))
    assert s.select()[0][1] >= 2
    torch.testing.assert_close(s.log_weights[0], torch.tensor([-torch.inf, 2.0 - math.log(2)], dtype=torch.float64))


def test_ratio_of_the_proposal_counts():
    guidance = fg.NestedSMC(branch=2, ess_threshold=0.0)
    s = fg.Steering(guidance, particles=1)
    s.begin(torch.zeros(1))
    s.weigh(torch.tensor([1.0, 2.0]), log_ratio=torch.tensor([0.5, -torch.inf]))
    assert s.select().tolist() == [[0]]
    torch.testing.assert_close(s.log_weights, torch.tensor([[1.5 - math.log(2)]], dtype=torch.float64))
