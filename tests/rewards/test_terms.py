from __future__ import annotations

import math

import pytest
import torch

from fastguide.rewards import Weighted, clipped, flat_bottom, linear, wrap

VALUES = torch.tensor([-3.0, -1.0, 0.0, 2.0, 5.0, -math.inf])


def value(x0):
    return x0


@pytest.mark.parametrize(
    ("shaped", "expected"),
    [
        (linear(value, slope=2.0, offset=1.0), [-8.0, -4.0, -2.0, 2.0, 8.0, -math.inf]),
        (flat_bottom(value, low=-1.0, high=2.0), [-2.0, 0.0, 0.0, 0.0, -3.0, -math.inf]),
        (flat_bottom(value, high=0.0, slope=0.5, power=2.0), [0.0, 0.0, 0.0, -2.0, -12.5, 0.0]),
        (clipped(value, low=-1.0, high=2.0), [-1.0, -1.0, 0.0, 2.0, 2.0, -math.inf]),
        (clipped(value, high=0.0), [-3.0, -1.0, 0.0, 0.0, 0.0, -math.inf]),
    ],
)
def test_shapes(shaped, expected):
    assert shaped(VALUES).tolist() == expected


def test_promises_are_those_of_the_reward_inside():
    inner = wrap(value, name="inner", deterministic=False, batch_invariant=True)
    inner.differentiable = True
    shaped = clipped(inner, high=1.0)
    assert (shaped.deterministic, shaped.batch_invariant, shaped.differentiable) == (False, True, True)
    assert shaped.name == "clipped(inner)"
    assert flat_bottom(inner, high=1.0, name="cap").name == "cap"
    x = torch.tensor([0.5, 3.0], requires_grad=True)
    flat_bottom(inner, high=1.0, power=2.0)(x).sum().backward()
    assert x.grad.tolist() == [0.0, -4.0]


def test_shapes_stand_in_sums():
    total = Weighted({linear(value, slope=2.0, name="a"): 1.0, clipped(value, high=0.0, name="b"): 3.0})
    assert total(VALUES[:5]).tolist() == [-15.0, -5.0, 0.0, 4.0, 10.0]


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: linear(value, slope=math.inf), "slope"),
        (lambda: flat_bottom(value), "low, high"),
        (lambda: flat_bottom(value, low=2.0, high=1.0), "low, high"),
        (lambda: flat_bottom(value, low=0.0, power=0.0), "power"),
        (lambda: flat_bottom(value, low=0.0, slope=-1.0), "slope"),
        (lambda: clipped(value, low=math.nan), "low, high"),
    ],
)
def test_settings_are_checked(make, match):
    with pytest.raises(ValueError, match=match):
        make()
