from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastguide.protein import ALPHABET, encode
from fastguide.rewards import composition_at_most, contains, forbids, max_run, net_charge


def holds(constraint, *sequences):
    values = constraint(torch.stack([encode(sequence) for sequence in sequences])).tolist()
    assert set(values) <= {0.0, -math.inf}
    return [value == 0 for value in values]


def test_max_run():
    assert holds(max_run(2), "AACCAA", "AAACCC", "ACDEFG") == [True, False, True]
    assert holds(max_run(10), "AAAAAA") == [True]
    assert holds(max_run(1), "A") == [True]


def test_runs_end_where_a_chain_does():
    assert holds(max_run(2), "CAAAC") == [False]
    assert holds(max_run(2, chains=(3, 2)), "CAAAC", "CAAAA") == [True, True]


@given(sequence=st.text(alphabet="ACD", min_size=1, max_size=12), k=st.integers(1, 6))
def test_max_run_counts_as_groupby_does(sequence, k):
    longest = max(len(list(group)) for _, group in itertools.groupby(sequence))
    assert holds(max_run(k), sequence) == [longest <= k]


def test_composition_at_most():
    assert holds(composition_at_most("C", 0.25), "CAAA", "CCAA") == [True, False]
    assert holds(composition_at_most("CM", 0.5), "CMAA", "CMMA") == [True, False]
    assert holds(composition_at_most("C", 0), "AAAA", "AAAC") == [True, False]


def test_net_charge_counts_side_chains():
    assert holds(net_charge(-1, 1), "KRDE", "KRRA", "DDEA", "HHHH") == [True, False, False, True]


def test_motifs():
    assert holds(forbids("N[^P][ST]"), "ANASA", "ANPSA", "ANATA") == [False, True, False]
    assert holds(contains("RGD"), "ARGDA", "ARGEA") == [True, False]
    assert holds(contains("^M"), "MAAA", "AMAA") == [True, False]


def test_no_motif_spans_two_chains():
    assert holds(contains("RGD"), "ARGDA") == [True]
    assert holds(contains("RGD", chains=(3, 2)), "ARGDA") == [False]
    assert holds(forbids("^M", chains=(2, 3)), "AAMAA", "AAAMA") == [False, True]


@pytest.mark.parametrize(
    "make", [lambda: max_run(2), lambda: net_charge(0, 1), lambda: contains("A"), lambda: composition_at_most("A", 0.1)]
)
def test_they_promise_and_refuse_what_rewards_do(make):
    constraint = make()
    assert constraint.deterministic
    assert constraint.batch_invariant
    assert constraint(torch.zeros(0, 4, dtype=torch.int64)).shape == (0,)
    with pytest.raises(ValueError, match="is no amino acid; tokens are 0 to 19"):
        constraint(torch.full((1, 4), len(ALPHABET)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: max_run(0), "k: expected 1 or more"),
        (lambda: composition_at_most("C", 5), "fraction: expected 0 to 1, got 5"),
        (lambda: composition_at_most("Z", 0.5), "amino_acids: unknown amino acid 'Z'"),
        (lambda: composition_at_most("", 0.5), "amino_acids: no amino acid given"),
        (lambda: net_charge(2, 1), "expected low <= high, got 2 and 1"),
        (lambda: net_charge(float("nan"), 1), "expected low <= high"),
        (lambda: forbids("N[^P"), "is no regular expression"),
        (lambda: contains(""), "pattern: empty"),
    ],
)
def test_wrong_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
