from __future__ import annotations

import pytest
import torch

from fastguide.errors import RewardError
from fastguide.rewards import NLL


class Stub:
    """A model whose negative log-likelihood of a token is its id, plus what the call asked for."""

    def __init__(self):
        self.calls = []

    def nll(self, tokens, *, orders, seed):
        self.calls.append((orders, seed))
        return tokens.float()


def test_the_reward_is_minus_the_mean_over_residues(tokens):
    model = Stub()
    reward = NLL(model, orders=4, seed=7)
    assert reward(tokens("ACD", "AAA")).tolist() == [-1.0, 0.0]
    assert model.calls == [(4, 7)]
    assert reward.deterministic
    assert reward.name == "likelihood"
    assert NLL(model, name="soluble").name == "soluble"


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="model: expected a model with nll"):
        NLL(torch.nn.Linear(2, 2))
    with pytest.raises(ValueError, match="orders: expected 1 or more, got 0"):
        NLL(Stub(), orders=0)


def test_wrong_samples_and_wrong_shapes_are_refused(tokens):
    with pytest.raises(TypeError, match="likelihood: expected int64 tokens"):
        NLL(Stub())("ACD")
    model = Stub()
    model.nll = lambda tokens, *, orders, seed: torch.zeros(len(tokens))
    with pytest.raises(RewardError, match=r"nll of tokens \[1, 3\] has the shape \[1\]"):
        NLL(model)(tokens("ACD"))
