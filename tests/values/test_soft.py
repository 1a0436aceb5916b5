"""Compiled values of soft samples: at a one-hot sample, or a real one, what the kernel gives; and their gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import fastguide as fg
from fastguide.values.compiled import MLP, Linear, MotifCount, PositionWeightMatrix, Potts, Quadratic


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


DENSE = [
    Linear(normal(4), 0.3),
    Quadratic(normal(4, 4), normal(4), 1.0),
    Quadratic(normal(4)),
    *(
        MLP([normal(6, 4), normal(1, 6)], [normal(6), normal(1)], name)
        for name in ("relu", "tanh", "silu", "gelu_tanh")
    ),
]
TOKENS = [
    PositionWeightMatrix(normal(6, 5)),
    PositionWeightMatrix(normal(3, 5), sliding=True),
    Potts(normal(6, 5), normal(6, 6, 5, 5)),
]


@pytest.mark.parametrize("reward", DENSE, ids=lambda r: r.kind)
def test_of_real_states(reward: fg.rewards.Reward) -> None:
    x = normal(7, 4).requires_grad_()
    value = reward.soft(x)
    torch.testing.assert_close(value.detach().float(), reward(x.detach()), rtol=1e-4, atol=1e-4)
    assert torch.autograd.grad(value.sum(), x)[0].any()


@pytest.mark.parametrize("reward", TOKENS, ids=lambda r: r.name)
def test_of_tokens(reward: fg.rewards.Reward) -> None:
    tokens = torch.randint(5, (7, 6), generator=torch.Generator().manual_seed(0))
    x = F.one_hot(tokens, 5).float().requires_grad_()
    value = reward.soft(x)
    torch.testing.assert_close(value.detach().float(), reward(tokens), rtol=1e-4, atol=1e-4)
    assert torch.autograd.grad(value.sum(), x)[0].any()


def test_what_has_no_gradient_says_so() -> None:
    scores = normal(6, 5)
    scores[0, 0] = -torch.inf
    for reward in (PositionWeightMatrix(scores), MotifCount([1, 1], 5), Potts(scores, normal(6, 6, 5, 5))):
        assert not reward.differentiable
        with pytest.raises(TypeError, match="it is not differentiable"):
            reward.soft(torch.zeros(1, 6, 5))


def test_sums_and_shapes_of_soft_values() -> None:
    matrix, potts = TOKENS[0], TOKENS[2]
    allowed = fg.rewards.Constraint(lambda x0: x0[:, 0] != 0, name="first")
    x = torch.softmax(normal(3, 6, 5), -1)
    whole = matrix + 2.0 * potts + allowed
    assert whole.differentiable
    expected = matrix.soft(x).double() + 2.0 * potts.soft(x).double()
    torch.testing.assert_close(whole.soft(x), expected)
    shaped = fg.rewards.linear(matrix, slope=3.0, offset=1.0)
    torch.testing.assert_close(shaped.soft(x), 3.0 * (matrix.soft(x) - 1.0))
    assert not (matrix + MotifCount([1, 1], 5)).differentiable
    with pytest.raises(TypeError, match="not differentiable"):
        fg.rewards.combine.Weighted([(1.0, allowed)]).soft(x)
