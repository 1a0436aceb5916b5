"""Distances, shares and complexity of sequences, on cases that can be checked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastguide.report.diversity import composition, entropy, longest_run, median_distance, shares
from fastguide.report.logo import BITS, information


def test_median_distance_is_over_all_pairs() -> None:
    tokens = np.array([[0, 0, 0], [0, 0, 1], [1, 1, 1]])
    assert median_distance(tokens) == 2  # of 1, 3 and 2


def test_one_sequence_has_no_distance() -> None:
    assert math.isnan(median_distance(np.array([[1, 2]])))


def test_weights_count_in_shares_and_composition() -> None:
    tokens, weights = np.array([[0, 1], [2, 1]]), np.array([0.75, 0.25])
    assert shares(tokens, weights)[0, [0, 2]].tolist() == [0.75, 0.25]
    assert shares(tokens, weights)[1, 1] == 1
    assert composition(tokens, weights)[[0, 1, 2]].tolist() == [0.375, 0.5, 0.125]


def test_unknown_letters_carry_no_information() -> None:
    unknown = shares(np.array([[20], [20]]))
    assert information(unknown)[0] == pytest.approx(0.0, abs=1e-12)
    assert information(shares(np.array([[3], [3]])))[0] == pytest.approx(BITS)


@pytest.mark.parametrize(
    ("text", "run"), [("", (0, "")), ("A", (1, "A")), ("AACCC", (3, "C")), ("AABB", (2, "A")), ("GAAAAG", (4, "A"))]
)
def test_longest_run_is_the_first_of_the_longest(text: str, run: tuple[int, str]) -> None:
    assert longest_run(text) == run


def test_entropy_counts_letters_in_bits() -> None:
    assert entropy("AAAA") == 0
    assert entropy("ACDE") == pytest.approx(2)
