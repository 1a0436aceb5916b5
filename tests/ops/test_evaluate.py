from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastguide import _cpu
from fastguide.ops import evaluate, reweight_select
from fastguide.values.compiled import MLP, Compiled, Linear, MotifCount, PositionWeightMatrix, Potts, Quadratic
from tests.specs import BUILDS, REFERENCE, assert_same_bits, build


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tokens(rows: int, length: int, vocab: int, seed: int = 0) -> Tensor:
    return torch.randint(0, vocab, (rows, length), generator=torch.Generator().manual_seed(seed))


def assert_same(expected: Tensor, got: Tensor, what: str) -> None:
    """Assert equal bits; a NaN equals any NaN."""
    assert got.dtype == torch.float32
    bits = torch.equal(
        expected.nan_to_num(0).view(torch.int32)[~expected.isnan()], got.nan_to_num(0).view(torch.int32)[~got.isnan()]
    )
    assert torch.equal(expected.isnan(), got.isnan()), what
    assert bits, what


def assert_agrees(value: Compiled, states: Tensor, builds: list[tuple[str, int]] = BUILDS) -> Tensor:
    """Assert that all builds give the bits of the reference, and return them."""
    with build(*REFERENCE):
        expected = evaluate(value, states, backend="torch")
    for level, threads in builds:
        with build(level, threads):
            assert_same(expected, evaluate(value, states, backend="cpu"), f"{value.kind}, {level}, {threads} threads")
    return expected


# Around the width of registers, the tiles of 64 and 1,024 rows and the runs that threads take.
ROWS = (1, 15, 65, 1023, 2_100)


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("columns", [1, 3, 15, 16, 17, 40])
def test_float_kinds_agree_with_the_reference(columns: int, rows: int) -> None:
    x = normal(rows, columns) * 3
    weight, center = normal(columns, seed=1), normal(columns, seed=2)
    assert_agrees(Linear(weight, -0.7), x)
    assert_agrees(Quadratic(weight, center, 0.3), x)
    assert_agrees(Quadratic(normal(columns, columns, seed=3), center, 0.3), x)


@pytest.mark.parametrize("activation", ["relu", "tanh", "silu", "gelu_tanh"])
@pytest.mark.parametrize("widths", [(1, 1), (5, 1), (7, 3, 1), (20, 33, 17, 1), (64, 128, 128, 1)])
def test_networks_agree_with_the_reference(widths: tuple[int, ...], activation: str) -> None:
    weights = [normal(b, a, seed=a + b) for a, b in itertools.pairwise(widths)]
    network = MLP(weights, [normal(b, seed=b) for b in widths[1:]], activation)
    for rows in (1, 70, 2_300):
        assert_agrees(network, normal(rows, widths[0]))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize(("length", "vocab"), [(1, 1), (7, 20), (8, 4), (9, 256), (25, 20), (6, 300)])
def test_token_kinds_agree_with_the_reference(length: int, vocab: int, rows: int) -> None:
    x = tokens(rows, length, vocab)
    scores = normal(length, vocab)
    couplings = normal(length, length, vocab, vocab) if vocab * vocab * length * length < 4e6 else None
    motifs = MotifCount([[0], [1 % vocab, 0], [0, 0, 0]], vocab)
    for dtype in (torch.int64, torch.int32, torch.uint8):
        if vocab > 256 and dtype == torch.uint8:
            continue
        states = x.to(dtype)
        assert_agrees(PositionWeightMatrix(scores), states)
        assert_agrees(PositionWeightMatrix(scores[: length // 2 + 1], sliding=True), states)
        assert_agrees(motifs, states)
        if couplings is not None:
            assert_agrees(Potts(scores, couplings), states)


def test_values_are_what_the_formulas_say() -> None:
    x = normal(50, 6)
    matrix, center = normal(6, 6, seed=1), normal(6, seed=2)
    y = (x - center).double()
    near = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(evaluate(Linear(center, 2.0), x), x @ center + 2, **near)
    torch.testing.assert_close(
        evaluate(Quadratic(matrix, center, 3.0), x).double(), 3 + 0.5 * ((y @ matrix.double()) * y).sum(1), **near
    )
    torch.testing.assert_close(evaluate(Quadratic([-2.0] * 6), x), -(x * x).sum(1), **near)
    t = torch.tensor([[0, 1, 0, 1, 0], [2, 2, 2, 2, 2]])
    assert evaluate(MotifCount([0, 1, 0], 3), t).tolist() == [2, 0]
    assert evaluate(MotifCount([[2, 2], [0, 1]], 3), t).tolist() == [2, 4]
    assert evaluate(MotifCount([0] * 9, 3), t).tolist() == [0, 0], "longer than the states"
    scores = torch.tensor([[0.0, 1.0, -torch.inf], [2.0, 0.0, 0.0]])
    assert evaluate(PositionWeightMatrix(scores, sliding=True), t).tolist() == [3, -torch.inf]
    fields, couplings = torch.zeros(5, 3), torch.zeros(5, 5, 3, 3)
    fields[4, 0] = 8
    couplings[1, 3, 1, 1] = 0.5
    couplings[3, 1] = 100  # below the diagonal
    assert evaluate(Potts(fields, couplings), t).tolist() == [8.5, 0]


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (torch.nn.ReLU(), "relu"),
        (torch.nn.Tanh(), "tanh"),
        (torch.nn.SiLU(), "silu"),
        (torch.nn.GELU(approximate="tanh"), "gelu_tanh"),
    ],
)
def test_networks_and_activations_agree_with_torch(layer: torch.nn.Module, name: str) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(9, 30), layer, torch.nn.Linear(30, 1, bias=False))
    network = MLP.from_torch(module)
    assert network.activation == name
    x = normal(100, 9) * 3
    with torch.no_grad():
        torch.testing.assert_close(network(x), module(x)[:, 0], rtol=1e-5, atol=1e-5)
        # One input, one hidden unit: the activation itself, relative to its exact value.
        points = torch.cat([torch.linspace(-20, 20, 4001), torch.logspace(-12, 0, 200)])
        exact = layer.double()(points.double())
    got = MLP([[[1.0]], [[1.0]]], activation=name)(points[:, None]).double()
    torch.testing.assert_close(got, exact, rtol=2e-6, atol=1e-6 if name == "gelu_tanh" else 1e-30)


def test_nan_and_infinity_pass_through_as_the_arithmetic_says() -> None:
    x = normal(70, 5)
    x[3, 2], x[4, 0], x[65, 4] = torch.nan, torch.inf, -torch.inf
    for value in (
        Linear([1.0, 2, 3, 4, 5]),
        Quadratic([1.0] * 5),
        Quadratic(normal(5, 5)),
        *(MLP([normal(6, 5), normal(1, 6)], activation=a) for a in ("relu", "tanh", "silu", "gelu_tanh")),
    ):
        got = assert_agrees(value, x)
        assert bool(got[3].isnan()), value.kind
        assert not bool(got[5:65].isnan().any()), value.kind


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_a_token_out_of_range_is_named(backend: str, dtype: torch.dtype) -> None:
    x = tokens(3_000, 6, 5).to(dtype)
    x[2_500, 1] = 7
    x[1_100, 4] = 5
    for value in (PositionWeightMatrix(normal(6, 5)), MotifCount([1], 5), Potts(normal(6, 5), normal(6, 6, 5, 5))):
        for level, threads in BUILDS:
            with (
                build(level, threads),
                pytest.raises(ValueError, match=r"states\[1100, 4\] is 5; expected a token 0 to 4"),
            ):
                value(x) if backend == "cpu" else evaluate(value, x, backend=backend)
    if dtype != torch.uint8:
        x[7, 0] = -1
        with pytest.raises(ValueError, match=r"states\[7, 0\] is -1"):
            evaluate(MotifCount([1], 5), x, backend=backend)


def test_tokens_beyond_32_bits_are_refused() -> None:
    with pytest.raises(ValueError, match=r"states\[0, 1\] is 4294967296"):
        evaluate(MotifCount([1], 5), torch.tensor([[1, 2**32]]))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_any_small_states(data: st.DataObject) -> None:
    length, vocab = data.draw(st.integers(1, 10)), data.draw(st.integers(1, 6))
    rows = data.draw(st.lists(st.lists(st.integers(0, vocab - 1), min_size=length, max_size=length), max_size=20))
    x = torch.tensor(rows, dtype=torch.int64).view(-1, length)
    seed = data.draw(st.integers(0, 100))
    builds = [(level, 1) for level in _cpu.levels()]
    window = data.draw(st.integers(1, length))
    motif = data.draw(st.lists(st.integers(0, vocab - 1), min_size=1, max_size=4))
    assert_agrees(PositionWeightMatrix(normal(window, vocab, seed=seed), sliding=True), x, builds)
    assert_agrees(Potts(normal(length, vocab, seed=seed), normal(length, length, vocab, vocab)), x, builds)
    counts = assert_agrees(MotifCount(motif, vocab), x, builds)
    expected = [sum(row[i : i + len(motif)] == motif for i in range(length)) for row in rows]
    assert counts.tolist() == expected


def test_a_value_does_not_depend_on_its_batch_or_its_layout() -> None:
    x, t = normal(200, 4, 5), tokens(200, 9, 5)
    values: list[tuple[Compiled, Tensor]] = [
        (Linear(normal(20)), x),
        (MLP([normal(8, 20), normal(1, 8)]), x),
        (Potts(normal(9, 5), normal(9, 9, 5, 5)), t),
        (PositionWeightMatrix(normal(9, 5)), t),
    ]
    for value, states in values:
        whole = value(states)
        assert torch.equal(torch.cat([value(states[i : i + 1]) for i in range(200)]), whole)
        assert torch.equal(value(states[7:150]), whole[7:150])
        strided = torch.empty(*states.shape, 2, dtype=states.dtype)
        strided[..., 0] = states
        assert torch.equal(value(strided[..., 0]), whole)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_no_states(backend: str) -> None:
    for value, states in ((Linear([1.0, 2.0]), torch.zeros(0, 2)), (MotifCount([1], 5), torch.zeros(0, 3).long())):
        assert evaluate(value, states, backend=backend).shape == (0,)


@pytest.mark.parametrize(
    ("value", "states", "error", "message"),
    [
        (Linear([1.0]), [[1.0]], TypeError, "linear: states: expected a torch.Tensor, got list"),
        (Linear([1.0]), torch.zeros(3, 1).double(), TypeError, r"linear: states: expected float32, .* \.float\(\)"),
        (Linear([1.0]), torch.zeros(3, 2), ValueError, "linear: expected states of 1 numbers each, got 2"),
        (Linear([1.0], name="fit"), torch.tensor(0.0), ValueError, "fit: states: expected shape"),
        (MotifCount([1], 3), torch.zeros(3, 2), TypeError, "motif_count: states: expected tokens of int64"),
        (MotifCount([1], 3), torch.zeros(3).long(), ValueError, r"expected tokens \[N, L\], got shape \(3,\)"),
        (PositionWeightMatrix([[1.0]]), torch.zeros(3, 2).long(), ValueError, "states of 1 tokens .* sliding=True"),
        (PositionWeightMatrix(torch.zeros(4, 2), True), torch.zeros(3, 2).long(), ValueError, "at least 4 tokens"),
        (
            Potts(torch.zeros(2, 3), torch.zeros(2, 2, 3, 3)),
            torch.zeros(3, 4).long(),
            ValueError,
            "2 tokens each, got 4",
        ),
        (torch.sum, torch.zeros(3, 2), TypeError, "value: expected one of fastguide.values.compiled or a function"),
    ],
)
def test_bad_arguments_are_refused(value: Any, states: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        evaluate(value, states)


def test_compiles_into_one_graph() -> None:
    network, potts = MLP([normal(8, 6), normal(1, 8)]), Potts(normal(6, 5), normal(6, 6, 5, 5))

    def total(x: Tensor, t: Tensor) -> Tensor:
        return evaluate(network, x * 2) + potts(t)

    x, t = normal(40, 6), tokens(40, 6, 5)
    assert torch.equal(torch.compile(total, backend="aot_eager", fullgraph=True)(x, t), total(x, t))


@pytest.mark.parametrize("shape", [(1,), (700,), (3, 4_097), (20_000,), (300, 33)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_evaluated_while_weighed_is_evaluated_and_then_weighed(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    n = math.prod(shape)
    log_weights, previous = (normal(*shape, seed=i).to(dtype) for i in (1, 2))
    log_weights[..., 0] = -torch.inf
    running = torch.arange(n).view(shape)
    values: list[tuple[Compiled, Tensor]] = [
        (Quadratic(normal(6), normal(6, seed=1)), normal(n, 2, 3)),
        (Potts(normal(9, 5), normal(9, 9, 5, 5)), tokens(n, 9, 5)),
        (PositionWeightMatrix(torch.tensor([[0.0, -torch.inf, 3.0]]), True), tokens(n, 2, 3)),
    ]
    for value, states in values:
        for threshold in (0.0, 1.0):
            common: dict[str, Any] = {
                "running": running,
                "ess_threshold": threshold,
                "seed": 3,
                "step": 8,
                "degenerate": "keep",
            }
            known = evaluate(value, states).to(dtype).view(shape)
            expected = reweight_select(log_weights, known, previous, 0.7, 0.3, log_ratio=previous, **common)
            for level, threads in BUILDS:
                with build(level, threads):
                    got = reweight_select(
                        log_weights, value, previous, 0.7, 0.3, states=states, log_ratio=previous, **common
                    )
                assert_same_bits(expected, got, f"{value.kind}, {level}, {threads} threads")
    value, states = values[1]
    referred = reweight_select(
        log_weights, value, previous, 0.7, 0.3, states=states, backend="torch", degenerate="keep"
    )
    got = reweight_select(log_weights, value, previous, 0.7, 0.3, states=states, degenerate="keep")
    assert_same_bits(referred, got, "reference")


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_states_that_cannot_be_evaluated_are_named_when_weighed(backend: str) -> None:
    zeros = torch.zeros(2, 9_000)
    x = tokens(18_000, 3, 5)
    x[17_000, 2] = 9
    with pytest.raises(ValueError, match=r"states\[17000, 2\] is 9; expected a token 0 to 4"):
        reweight_select(zeros, MotifCount([1], 5), zeros, 1.0, 0.0, states=x, backend=backend)
    y = normal(18_000, 2)
    y[17_000, 0] = torch.nan
    with pytest.raises(ValueError, match=r"values: nan at group 1, index 8000 of shape \(2, 9000\)"):
        reweight_select(zeros, Linear([1.0, 1.0]), zeros, 1.0, 0.0, states=y, backend=backend)


def test_states_and_values_belong_together() -> None:
    zeros, value = torch.zeros(2, 3), Linear([1.0])
    with pytest.raises(TypeError, match="states: values is a compiled value, which needs the states"):
        reweight_select(zeros, value, zeros, 1.0, 0.0)
    with pytest.raises(TypeError, match="states: only a compiled value reads them, but values is a Tensor"):
        reweight_select(zeros, zeros, zeros, 1.0, 0.0, states=zeros)
    with pytest.raises(ValueError, match=r"states: expected 6 rows, one a particle, got shape \(3, 1\)"):
        reweight_select(zeros, value, zeros, 1.0, 0.0, states=torch.zeros(3, 1))


def test_the_form_that_evaluates_is_registered_with_torch() -> None:
    zeros, value = torch.zeros(2, 30), Linear([1.0, -1.0])
    arguments = (zeros, None, 1.0, None, 0.5, None, zeros, "systematic", 0.5, None, 3, None, 1, False, None)
    torch.library.opcheck(
        torch.ops.fastguide.reweight_select_states.default,
        (zeros, normal(60, 2), "linear", *value.arguments(zeros.dtype), *arguments),
    )

    def step(x: Tensor) -> Tensor:
        out = reweight_select(zeros, value, zeros, 1.0, 0.0, states=x)
        return out.values + out.log_weights

    x = normal(60, 2)
    assert torch.equal(torch.compile(step, backend="aot_eager", fullgraph=True)(x), step(x))
