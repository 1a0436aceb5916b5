from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastguide.errors import BackendUnavailable, RewardError
from fastguide.ops import evaluate
from fastguide.values.compiled import (
    MLP,
    Compiled,
    Function,
    Linear,
    MotifCount,
    PositionWeightMatrix,
    Potts,
    Quadratic,
    TritonFunction,
)
from tests.triton.agreement import assert_agrees
from tests.triton.device import DEVICE

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tokens(rows: int, length: int, vocab: int, seed: int = 0) -> Tensor:
    return torch.randint(0, vocab, (rows, length), generator=torch.Generator().manual_seed(seed))


def agree(value: Compiled, states: Tensor) -> Tensor:
    def call(states: Tensor, backend: str) -> Tensor:
        return evaluate(value, states, backend=backend)

    values: Tensor = assert_agrees(call, f"{value.kind} {tuple(states.shape)}", states=states)[0]
    return values


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (15, 3), (70, 17), (33, 64), (1030, 5)])
def test_sums_over_columns_agree(rows: int, columns: int) -> None:
    x, weight, center = normal(rows, columns) * 3, normal(columns, seed=1), normal(columns, seed=2)
    agree(Linear(weight, -0.7), x)
    agree(Quadratic(weight, center, 0.3), x)
    agree(Quadratic(normal(columns, columns, seed=3), center, 0.3), x)


@pytest.mark.parametrize("activation", ["relu", "tanh", "silu", "gelu_tanh"])
def test_networks_agree(activation: str) -> None:
    for rows, widths in ((3, (4, 5, 1)), (300, (17, 70, 9, 1)), (7, (2, 1))):
        sizes = list(itertools.pairwise(widths))
        weights, biases = [normal(b, a, seed=a) * 3 for a, b in sizes], [normal(b, seed=b) for _, b in sizes]
        scales = torch.logspace(-6, 2, rows)[:, None]
        agree(MLP(weights, biases, activation=activation), normal(rows, widths[0]) * scales)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_token_kinds_agree(dtype: torch.dtype) -> None:
    for rows, length, vocab in ((1, 1, 2), (70, 9, 4), (600, 40, 22)):
        x = tokens(rows, length, vocab).to(dtype)
        scores = normal(length, vocab, seed=1)
        scores[0, 1] = -math.inf
        agree(PositionWeightMatrix(scores), x)
        agree(PositionWeightMatrix(scores[: max(1, length // 4)], sliding=True), x)
        agree(MotifCount([[1], [0, 1, 0], list(range(vocab)) * 3], vocab), x)
        agree(Potts(normal(length, vocab), normal(length, length, vocab, vocab, seed=2)), x)


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_motif_agrees(data: st.DataObject) -> None:
    token = st.integers(0, 2)
    motifs = data.draw(st.lists(st.lists(token, min_size=1, max_size=4), min_size=1, max_size=4))
    x = torch.tensor(data.draw(st.lists(st.lists(token, min_size=7, max_size=7), min_size=1, max_size=5)))
    agree(MotifCount(motifs, 3), x)


@pytest.mark.parametrize(
    "value", [MotifCount([0], 5), Potts(normal(6, 5), normal(6, 6, 5, 5)), PositionWeightMatrix(normal(6, 5))]
)
def test_a_token_outside_is_refused_as_by_the_reference(value: Any) -> None:
    x = tokens(4, 6, 5)
    x[2, 3], x[3, 0], x[2, 5] = 5, -1, -(2**40)
    errors = []
    for backend in ("torch", "cpu", "triton"):
        with pytest.raises(ValueError, match=r"states\[2, 3\] is 5; expected a token 0 to 4") as raised:
            evaluate(value, x.to(DEVICE) if backend == "triton" else x, backend=backend)
        errors.append(str(raised.value))
    assert errors[0] == errors[1] == errors[2]


@triton.jit
def _polynomial(state, present, columns):
    total = tl.zeros(state.shape, tl.float32)
    for d in range(columns):
        total = total * 0.5 + tl.load(state + d, mask=present, other=0.0)
    return total


@triton.jit
def _root(state, present, columns):
    return tl.sqrt_rn(tl.load(state, mask=present, other=0.0))


def horner(states: Tensor) -> Tensor:
    total = torch.zeros(len(states), device=states.device)
    for d in range(states.shape[1]):
        total = total * 0.5 + states[:, d]
    return total


def test_a_device_function_agrees_with_its_python_one() -> None:
    value = TritonFunction(_polynomial, python=horner)
    assert value.name == "_polynomial"
    for rows, columns in ((1, 1), (100, 7), (700, 33)):
        x = normal(rows, columns)
        got = evaluate(value, x.to(DEVICE), backend="triton").cpu()
        assert torch.equal(got, evaluate(value, x, backend="torch"))
    assert evaluate(value, torch.zeros(0, 3, device=DEVICE), backend="triton").shape == (0,)


def test_nan_of_a_device_function_is_an_error_that_names_the_state() -> None:
    x = normal(9, 2).abs().to(DEVICE)
    x[6, 0], x[8, 0] = math.nan, math.nan
    with pytest.raises(RewardError, match=r"value 'root': wrote no number for states\[6\]") as raised:
        evaluate(TritonFunction(_root, name="root"), x, backend="triton")
    assert raised.value.sample is not None


def test_functions_without_an_implementation_are_refused() -> None:
    x = normal(3, 2)
    with pytest.raises(BackendUnavailable, match=r'value .f.: has no implementation for backend "cpu"'):
        evaluate(TritonFunction(_root, name="f"), x, backend="cpu")
    with pytest.raises(BackendUnavailable, match=r'value .g.: has no implementation for backend "triton"'):
        evaluate(Function(4096, name="g"), x.to(DEVICE), backend="triton")
    with pytest.raises(TypeError, match=r"function: expected a function decorated by triton\.jit, got function"):
        TritonFunction(horner)
    with pytest.raises(TypeError, match=r"states: the function reads torch\.float32, got torch\.int64"):
        evaluate(TritonFunction(_root, name="f"), x.long().to(DEVICE), backend="triton")


def test_a_parameter_changed_in_place_is_copied_again() -> None:
    value = Linear(torch.ones(3), 0.0)
    x = torch.ones(2, 3, device=DEVICE)
    assert evaluate(value, x, backend="triton").tolist() == [3.0, 3.0]
    value.weight.mul_(2)
    assert evaluate(value, x, backend="triton").tolist() == [6.0, 6.0]
