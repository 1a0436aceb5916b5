from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

import fastguide as fg
from fastguide.values.compiled import MLP, Linear, MotifCount, PositionWeightMatrix, Potts, Quadratic


def test_a_compiled_value_is_a_reward() -> None:
    process = fg.MaskedProcess(length=6, vocab=3, steps=6)
    count = MotifCount([1, 1], 3)
    result = fg.sample(
        process, lambda x, t: torch.zeros(len(x), 6, 3), count, fg.SMC(alpha=0.2), particles=200, progress=False
    )
    # Unguided, 5 pairs of neighbours are 1-1 with probability 1/9 each.
    assert float(count(result.draw(100)).mean()) > 2
    assert count.deterministic
    assert count.batch_invariant
    assert not count.differentiable
    both = count + 0.5 * PositionWeightMatrix(torch.ones(6, 3), name="sum")
    assert both.name == "motif_count+0.5*sum"
    assert both(torch.ones(2, 6, dtype=torch.int64)).tolist() == [8, 8]


def test_a_built_in_value_is_evaluated_as_it_comes_and_its_result_is_that_of_a_remembered_one() -> None:
    matrix = PositionWeightMatrix(torch.randn(6, 3, generator=torch.Generator().manual_seed(0)))
    table = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    process = fg.MaskedProcess(length=6, vocab=3, steps=6)

    def run(reward: Any) -> fg.Result:
        return fg.sample(
            process, lambda x, t: table.expand(len(x), -1, -1), reward, fg.SMC(), particles=64, progress=False
        )

    direct, remembered = run(matrix), run(fg.rewards.wrap(lambda x: matrix(x), name="remembered"))
    assert torch.equal(direct.samples, remembered.samples)
    assert torch.equal(direct.log_weights, remembered.log_weights)
    assert direct.reward_rows > remembered.reward_rows


def test_parameters_are_copied() -> None:
    weight = torch.ones(2)
    value = Linear(weight)
    weight.fill_(7)
    assert value(torch.ones(1, 2)).tolist() == [2]
    with pytest.raises(dataclasses.FrozenInstanceError):
        value.bias = 3  # type: ignore[misc]


def test_trained_parameters_need_no_detach() -> None:
    layer = torch.nn.Linear(3, 1).double()
    assert Linear(layer.weight[0], layer.bias)(torch.ones(4, 3)).requires_grad is False


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Linear([]), ValueError, r"weight: expected shape \[D\], got \[0\]"),
        (lambda: Linear([[1.0]]), ValueError, r"weight: expected shape \[D\], got \[1, 1\]"),
        (lambda: Linear([1.0, torch.nan]), ValueError, r"weight: nan at \[1\]; expected finite numbers"),
        (lambda: Linear([1e300]), ValueError, r"weight: inf at \[0\]; expected finite numbers in float32"),
        (lambda: Linear([1.0], [1.0, 2.0]), ValueError, r"bias: expected shape \[\], got \[2\]"),
        (lambda: Linear([1j]), TypeError, "weight: expected real numbers"),
        (lambda: Quadratic(torch.ones(2, 3)), ValueError, r"matrix: expected shape \[D, 2\], got \[2, 3\]"),
        (lambda: Quadratic([1.0, 2.0], [1.0]), ValueError, r"center: expected shape \[2\], got \[1\]"),
        (lambda: MLP([]), ValueError, "weights: no layer given"),
        (lambda: MLP([torch.ones(2, 3)]), ValueError, r"weights\[0\]: expected shape \[1, D\], got \[2, 3\]"),
        (
            lambda: MLP([torch.ones(2, 3), torch.ones(1, 4)]),
            ValueError,
            r"weights\[1\]: expected shape \[1, 2\], got \[1, 4\]",
        ),
        (lambda: MLP([torch.ones(1, 3)], []), ValueError, "biases: expected one for each of the 1 weights, got 0"),
        (lambda: MLP([torch.ones(1, 3)], activation="gelu"), ValueError, "activation: unknown value 'gelu'; choose"),
        (lambda: MLP.from_torch(torch.nn.Sequential(torch.nn.ReLU())), ValueError, "module: expected Linear"),
        (
            lambda: MLP.from_torch(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.GELU(), torch.nn.Linear(2, 1))),
            ValueError,
            "no compiled form of GELU",
        ),
        (lambda: PositionWeightMatrix([[torch.inf]]), ValueError, r"scores: inf at \[0, 0\]; .* or -inf"),
        (lambda: MotifCount([], 4), ValueError, "motifs: none given"),
        (lambda: MotifCount([[1], []], 4), ValueError, r"motif 1 is \[\]; expected one or more tokens 0 to 3"),
        (lambda: MotifCount([4], 4), ValueError, r"motif 0 is \[4\]"),
        (lambda: MotifCount([0.5], 4), TypeError, r"motifs: expected token ids, .* got \[0.5\]"),
        (lambda: MotifCount(["ab"], 4), TypeError, "motifs: expected token ids"),
        (lambda: MotifCount([[1], 2], 4), TypeError, "motifs: expected token ids"),
        (lambda: MotifCount([1], 0), ValueError, "vocab: expected a whole number"),
        (
            lambda: Potts(torch.ones(2, 3), torch.ones(2, 2, 3, 2)),
            ValueError,
            r"couplings: expected shape \[2, 2, 3, 3\], got \[2, 2, 3, 2\]",
        ),
    ],
)
def test_bad_parameters_are_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()
