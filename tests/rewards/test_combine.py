from __future__ import annotations

import math

import pytest
import torch

from fastguide.errors import RewardError
from fastguide.rewards import Constraint, Weighted, max_run, wrap


def reward(name, fn, **attributes):
    made = wrap(fn, name=name)
    for key, value in attributes.items():
        setattr(made, key, value)
    return made


@pytest.fixture
def first():
    return reward("first", lambda x0: x0[:, 0].float(), batch_invariant=True)


@pytest.fixture
def total():
    return reward("total", lambda x0: x0.sum(dim=1).double())


X0 = torch.tensor([[1, 2, 3], [4, 4, 4]])


def test_a_weighted_sum(first, total):
    for terms in ({first: 2.0, total: -0.5}, [(2.0, first), (-0.5, total)]):
        combined = Weighted(terms)
        assert combined(X0).tolist() == [2 * 1 - 3.0, 2 * 4 - 6.0]
        assert combined(X0).dtype == torch.float64
        assert combined.name == "2*first-0.5*total"
    assert Weighted([(1, lambda x0: x0[:, 1])])(X0).tolist() == [2.0, 4.0]


def test_parts_are_the_columns_of_a_report(first, total):
    parts = Weighted({first: 2.0, total: -0.5}).parts(X0)
    assert {name: values.tolist() for name, values in parts.items()} == {"first": [1, 4], "total": [6, 12]}


@pytest.mark.parametrize("attribute", ["deterministic", "batch_invariant", "differentiable"])
@pytest.mark.parametrize("values", [(True, True), (True, False), (False, False)])
def test_a_promise_holds_if_every_term_makes_it(attribute, values, first, total):
    for term, value in zip((first, total), values, strict=True):
        setattr(term, attribute, value)
    assert getattr(first + total, attribute) is all(values)


def test_operators_write_sums(first, total):
    third = reward("third", lambda x0: x0[:, 2])
    combined = first + 0.5 * total - third * 2
    assert [(weight, term.name) for weight, term in combined.terms] == [(1, "first"), (0.5, "total"), (-2, "third")]
    assert combined.name == "first+0.5*total-2*third"
    assert combined(X0).tolist() == [1 + 3 - 6, 4 + 6 - 8]
    assert (-(first - total))(X0).tolist() == [5, 8]
    assert (2 * (first + total)).name == "2*first+2*total"


def test_operators_refuse_what_is_no_reward(first):
    with pytest.raises(TypeError, match="unsupported operand"):
        first + 1
    with pytest.raises(TypeError, match=r"can't multiply|unsupported operand"):
        first * "2"


def test_a_violated_constraint_outweighs_everything(first, total):
    short = Constraint(lambda x0: x0[:, 0] < 3, name="short")
    assert short(X0).tolist() == [0.0, -math.inf]
    assert (1e6 * total + 0.1 * short)(X0).tolist() == [6e6, -math.inf]


def test_a_weight_of_zero_keeps_the_column_only(first):
    never = reward("never", lambda x0: torch.full((len(x0),), -math.inf))
    combined = Weighted({first: 1.0, never: 0.0})
    assert combined(X0).tolist() == [1.0, 4.0]
    assert combined.parts(X0)["never"].tolist() == [-math.inf] * 2


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([], "no reward given"),
        ([(math.nan, wrap(len, name="a"))], "the weight of a is nan"),
        ([(math.inf, wrap(len, name="a"))], "the weight of a is inf"),
        ([(1, wrap(len, name="a")), (1, wrap(max, name="a"))], "two rewards are named 'a'"),
        ([(-1, max_run(3))], r"the constraint max_run\(3\) has the weight -1"),
    ],
)
def test_wrong_sums_are_refused(terms, message):
    with pytest.raises(ValueError, match=message):
        Weighted(terms)


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x0: torch.zeros(len(x0), 1), r"bad: expected values of the shape \[2\], got \[2, 1\]"),
        (lambda x0: torch.tensor(1.0), r"bad: expected values of the shape \[2\], got \[\]"),
        (lambda x0: torch.tensor([0.0, math.nan]), r"bad: the value of sample 1 is nan"),
    ],
)
def test_a_term_that_misbehaves_is_named(fn, message, first):
    with pytest.raises(RewardError, match=message):
        (first + reward("bad", fn))(X0)


def test_a_predicate_that_is_no_condition_is_refused():
    with pytest.raises(RewardError, match=r"odd: the predicate has to return bool \[2\], got torch.int64 \[2\]"):
        Constraint(lambda x0: x0[:, 0], name="odd")(X0)
    with pytest.raises(TypeError, match="predicate: expected a callable"):
        Constraint(3, name="odd")
