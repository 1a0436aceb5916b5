"""Beam search by hand."""

from __future__ import annotations

import pytest
import torch

import fastguide as fg


def select(guidance, values, *, final=False):
    values = torch.tensor(values, dtype=torch.float64)
    s = fg.Steering(guidance, particles=values.shape[1], groups=len(values))
    s.begin(torch.zeros(values.shape[:2]))
    (s.finish if final else s.weigh)(values)
    return s, s.select()


def test_best_of_the_group_best_first_and_ties_to_the_first():
    values = [[[1.0, 5.0], [5.0, 4.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0], [0.0, 0.1]]]
    s, chosen = select(fg.Beam(branch=2), values)
    assert chosen.tolist() == [[1, 2, 3], [5, 0, 1]]
    assert s.state.values.tolist() == [[5.0, 5.0, 4.0], [0.1, 0.0, 0.0]]
    assert bool((s.log_weights == 0).all())


def test_best_of_every_parent():
    values = [[[1.0, 5.0], [5.0, 4.0], [0.0, 0.0]]]
    _, chosen = select(fg.Beam(branch=2, best_of="parent"), values)
    assert chosen.tolist() == [[1, 2, 4]]
    _, same = select(fg.SVDD(branch=2, alpha=0.0), values)
    assert torch.equal(chosen, same)


@pytest.mark.parametrize("best_of", ["group", "parent"])
@pytest.mark.parametrize("offset", [0.0, 1e12, -1e12])
def test_rewards_of_any_size_are_ranked(best_of, offset):
    values = (torch.tensor([[[1.0, 3.0], [6.0, 5.0]]], dtype=torch.float64) + offset).tolist()
    _, chosen = select(fg.Beam(branch=2, best_of=best_of), values)
    assert chosen.tolist() == ([[2, 3]] if best_of == "group" else [[1, 2]])


def test_forbidden_samples_are_left_out():
    never = -torch.inf
    s, chosen = select(
        fg.Beam(branch=2), [[[never, 1.0], [never, never]], [[never, never], [never, never]]], final=True
    )
    assert chosen[0].tolist() == [1, 1]
    assert s.log_weights.tolist() == [[0.0, 0.0], [never, never]]


def test_it_estimates_no_normalizer():
    s, _ = select(fg.Beam(branch=2), [[[1.0, 2.0]]], final=True)
    assert bool(s.log_normalizer.isnan().all())
    assert not fg.Beam().consistent
