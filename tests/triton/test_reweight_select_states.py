"""Values that the kernels of `reweight_select` evaluate: the bits of `evaluate` and then `reweight_select`."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fastguide.deferred import Deferred, deferred
from fastguide.errors import RewardError
from fastguide.ops import evaluate, move, reweight_select
from fastguide.values.compiled import Compiled, Linear, MotifCount, Quadratic, TritonFunction
from tests.specs import assert_same_bits
from tests.test_deferred import HostReads
from tests.triton.agreement import assert_agrees, filled_with_nan, flat, on_device
from tests.triton.device import DEVICE

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")
kernels = pytest.importorskip("fastguide.triton.reweight_select")

# Infinities meet on purpose; numpy, in which kernels are interpreted, says so.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
SHAPES = [(1, 1), (70, 9), (3, 700), (2, 4096), (1, 9001), (2, 4200)]


@pytest.fixture(params=["fused", "apart"])
def fused(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Let the kernels that weigh evaluate, whatever it costs, or never, and say which."""
    monkeypatch.setattr(kernels, "FILLING", 0 if request.param == "fused" else 2**62)
    monkeypatch.setattr(kernels, "LAUNCH_BYTES", 0)
    return bool(request.param == "fused")


def test_a_kernel_that_weighs_evaluates(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    launched: list[str] = []
    evaluate = kernels.evaluate
    monkeypatch.setattr(kernels, "evaluate", lambda kind, *rest: (launched.append(kind), evaluate(kind, *rest)))
    zeros, value = torch.zeros(2, 50, device=DEVICE), Linear([1.0], 0.0)
    states = torch.ones(100, 1, device=DEVICE)
    reweight_select(zeros, value, zeros, 1.0, 0.5, states=states, backend="triton")
    assert launched == ([] if fused else ["linear"])


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@triton.jit
def _product(state, present, columns):
    total = tl.full(state.shape, 1.0, tl.float32)
    for d in range(columns):
        total = total * (tl.load(state + d, mask=present, other=0.0) + 0.5)
    return total


@triton.jit
def _logarithm(state, present, columns):
    """NaN of a number below 0, -inf of 0."""
    x = tl.load(state + columns - 1, mask=present, other=1.0)
    return tl.where(x < 0, float("nan"), tl.where(x == 0, float("-inf"), x - 1))


def particles(groups: int, n: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return groups of which some resample at a threshold of one half, all but their values."""
    spread = torch.linspace(0.1, 3, groups, dtype=dtype)[:, None]
    x = normal(groups, n).to(dtype) * spread - 300
    x[:, 2 :: max(n // 3, 2)] = -math.inf
    return {"log_weights": x, "previous_values": normal(groups, n, seed=2).to(dtype)}


def both_ways(value: Compiled, states: Tensor, given: dict[str, Tensor], **settings: Any) -> tuple[Any, Any]:
    """Return what one call with the states gives and what two give, moved states last."""
    given, states = on_device(given), states.to(DEVICE)
    with filled_with_nan():
        one = reweight_select(values=value, states=states, **given, **settings, backend="triton")
        values = evaluate(value, states, backend="triton").to(one.values.dtype).view(one.values.shape)
        two = reweight_select(values=values, **given, **settings, backend="triton")
    assert_same_bits(flat(two), flat(one), value.name)
    return [*one, move(states, one.ancestors, backend="triton")], [*two, move(states, two.ancestors, backend="triton")]


@pytest.mark.parametrize(("groups", "n"), SHAPES)
def test_a_function_of_the_users_own(groups: int, n: int, fused: bool) -> None:
    value = TritonFunction(_product, name="product")
    for columns, dtype, more in (
        (3, torch.float32, {"ess_threshold": 1.0}),
        (1, torch.float64, {"running": torch.arange(groups * n).view(groups, n).to(DEVICE), "rule": "multinomial"}),
        (7, torch.float32, {"log_ratio": normal(groups, n, seed=4).to(DEVICE), "step": 9, "ess_threshold": 0.8}),
    ):
        states = normal(groups * n, columns, seed=5)
        one, two = both_ways(value, states, particles(groups, n, dtype), beta=1.5, previous_beta=0.7, seed=3, **more)
        assert_same_bits(flat(two), flat(one), f"{columns} columns")


@pytest.mark.parametrize(("groups", "n"), SHAPES)
def test_sums_over_columns(groups: int, n: int, fused: bool) -> None:
    for value in (Linear(normal(9, seed=6), -0.3), Quadratic(normal(9, seed=6).abs(), normal(9, seed=7), 0.1)):
        for dtype in (torch.float32, torch.float64):
            settings = {"beta": 0.4, "previous_beta": torch.zeros(()), "ess_threshold": 1.0, "rule": "residual"}
            given = {**particles(groups, n, dtype), **settings, "degenerate": "keep"}
            assert_agrees(reweight_select, value.kind, values=value, states=normal(groups * n, 3, 3, seed=5), **given)


def test_kinds_that_take_launches_of_their_own(fused: bool) -> None:
    tokens = torch.randint(0, 5, (100, 9), generator=torch.Generator().manual_seed(0))
    both_ways(MotifCount([[0, 1], [2]], 5), tokens, particles(2, 50, torch.float64), beta=1.0, previous_beta=0.5)
    tokens[70, 3] = 5
    zeros = torch.zeros(2, 50, device=DEVICE)
    with pytest.raises(ValueError, match=r"states\[70, 3\] is 5; expected a token 0 to 4"):
        reweight_select(zeros, MotifCount([1], 5), zeros, 1, 0, states=tokens.to(DEVICE), backend="triton")


@pytest.mark.parametrize("n", [50, 5000])
def test_nan_names_the_first_state_that_gives_it(n: int, fused: bool) -> None:
    zeros, states = torch.zeros(2, n, device=DEVICE), torch.ones(2 * n, 2, device=DEVICE)
    states[[n + 9, 2 * n - 1], 1] = -1.0
    previous = zeros.clone()
    previous[0, 3] = math.nan  # comes first, but values are evaluated before they are weighed
    value = TritonFunction(_logarithm, name="logarithm")
    for other in (zeros, previous):
        with pytest.raises(RewardError, match=rf"value 'logarithm': wrote no number for states\[{n + 9}\]"):
            reweight_select(zeros, value, other, 1.0, 0.5, states=states, backend="triton")
    states[:] = 1.0
    with pytest.raises(ValueError, match="previous_values: nan at group 0, index 3"):
        reweight_select(zeros, value, previous, 1.0, 0.5, states=states, backend="triton")
    later = Deferred()
    states[n + 9, 1] = -1.0
    with deferred(later):
        reweight_select(zeros, value, zeros, 1.0, 0.5, states=states, backend="triton")
    with pytest.raises(ValueError, match=f"refused a value at flat index {n + 9}"):
        later.check()


def test_values_of_minus_infinity_kill(fused: bool) -> None:
    states = normal(300, 2, seed=3).abs().round()
    given = {"log_weights": torch.zeros(3, 100), "previous_values": torch.zeros(3, 100)}
    value = TritonFunction(_logarithm, name="logarithm")
    one, _ = both_ways(value, states, given, beta=1.0, previous_beta=0.0, ess_threshold=1.0)
    assert bool((states[:, 1] == 0).any())
    assert bool((one[-1][:, 1] > 0).all())


def test_the_host_reads_nothing(fused: bool) -> None:
    given, states = on_device(particles(2, 300, torch.float32)), normal(600, 3).to(DEVICE)
    settings = {"beta": 1.0, "previous_beta": 0.5, "states": states, "backend": "triton"}
    for value in (Linear(normal(3), 0.1), TritonFunction(_product, name="product")):
        expected = reweight_select(values=value, **given, **settings)
        later = Deferred()
        with deferred(later), HostReads():
            got = reweight_select(values=value, **given, **settings)
        later.check()
        assert_same_bits(flat(expected), flat(got), value.name)


@pytest.mark.parametrize(
    ("rule", "groups", "n", "pays"),
    [
        (0, 1, 1000, True),
        (0, 1, 4096, False),  # 256 KB for one multiprocessor
        (0, 300, 4096, True),
        (0, 1, 100_000, False),
        (0, 1, 2**20, True),
        (0, 8, 30, True),
        (3, 2, 3000, False),
    ],
)
def test_programs_evaluate_where_that_pays(rule: int, groups: int, n: int, pays: bool) -> None:
    assert kernels._pays(rule, groups, n, 64, DEVICE) == pays
