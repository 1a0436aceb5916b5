from __future__ import annotations

import math

import pytest
import torch

from fastguide.population import Diversity, diversity, pareto_front


def dominated(values, i):
    others = torch.cat([values[:i], values[i + 1 :]])
    return bool(((others >= values[i]).all(1) & (others > values[i]).any(1)).any())


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_a_front_is_what_nothing_dominates(objectives):
    generator = torch.Generator().manual_seed(objectives)
    values = torch.randint(0, 12, (200, objectives), generator=generator).double()
    front = pareto_front(values)
    assert sorted(front.tolist()) == [i for i in range(200) if not dominated(values, i)]
    first = values[front, 0]
    assert bool((first[:-1] >= first[1:]).all())


def test_forbidden_and_undefined_rows_belong_to_no_front():
    values = torch.tensor([[1.0, -math.inf], [0.0, 0.0], [5.0, math.nan], [0.0, 0.0]]).double()
    assert pareto_front(values).tolist() == [1, 3]
    assert pareto_front(values[:1]).tolist() == []
    with pytest.raises(ValueError, match=r"values: expected shape \[n, objectives\]"):
        pareto_front(values[0])


def test_pairwise_distance_is_that_of_two_draws_by_weight():
    samples = torch.tensor([[0, 0, 0], [0, 1, 1], [2, 2, 2], [0, 0, 0]])
    weights = torch.tensor([0.5, 0.3, 0.0, 0.2], dtype=torch.float64)
    found = diversity(samples, weights.log(), 2)
    # Two draws differ with probability 2 · 0.3 · 0.7 and then in 2 positions: 0.84. The standard error of the mean over
    # 65,536 pairs is 0.0039; 5 of them: one failure in 1.7 million seeds.
    assert (found.samples, found.distinct, found.unique_ancestors) == (3, 2, 2)
    assert abs(found.pairwise_distance - 0.84) < 5 * 0.0039
    assert diversity(samples, weights.log(), 2) == found


def test_distances_of_real_states_are_euclidean():
    samples = torch.tensor([[[0.0, 0.0]], [[3.0, 4.0]]])
    found = diversity(samples, torch.zeros(2, dtype=torch.float64), 2)
    assert abs(found.pairwise_distance - 2.5) < 5 * 2.5 / 256


def test_a_population_without_weight_has_no_diversity():
    found = diversity(torch.zeros(2, 3), torch.full((2,), -math.inf, dtype=torch.float64), 1)
    assert found == Diversity(0, 0, pytest.approx(math.nan, nan_ok=True), 1)
