from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastguide import _cpu
from fastguide.errors import DegenerateWeights
from fastguide.ops import ReweightSelection, reweight_select, select
from fastguide.ops.reweight_select import RULES
from fastguide.reference.philox import expand_seed
from tests.specs import BUILDS, REFERENCE, assert_same_bits, build


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def particles(*shape: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Return log-weights, values and previous values, some of them of dead particles."""
    log_weights, values, previous = (normal(*shape, seed=i, dtype=dtype) for i in (1, 2, 3))
    log_weights = torch.where(normal(*shape, seed=4) > 1.2, -math.inf, log_weights)
    previous = torch.where(log_weights == -math.inf, -math.inf, previous)
    return log_weights, torch.where(normal(*shape, seed=5) > 1.5, -math.inf, 3 * values), previous


def assert_agrees(*args: Any, builds: list[tuple[str, int]] = BUILDS, **settings: Any) -> ReweightSelection:
    """Assert that all builds give the bits of the reference, and return them."""
    with build(*REFERENCE):
        expected = reweight_select(*args, **settings, backend="torch")
    for level, threads in builds:
        with build(level, threads):
            got = reweight_select(*args, **settings, backend="cpu")
        assert_same_bits(expected, got, f"{level}, {threads} threads")
    return expected


@pytest.mark.parametrize("shape", [(1,), (7,), (5, 64), (3, 4097), (2, 20_000), (300, 33)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", RULES)
def test_backends_agree(rule: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    log_weights, values, previous = particles(*shape, dtype=dtype)
    beta = torch.linspace(0.1, 2, shape[0]) if len(shape) > 1 else 0.7
    running = torch.arange(log_weights.numel()).view(shape)
    for threshold in (0.0, 0.5, 1.0):
        common = {"rule": rule, "ess_threshold": threshold, "seed": 3, "step": 8, "degenerate": "keep"}
        assert_agrees(log_weights, values, previous, beta, 0.3, **common)
        ratio = normal(*shape, seed=6, dtype=dtype)
        assert_agrees(log_weights, values, previous, 1.1, beta, log_ratio=ratio, running=running, **common)


_number = st.one_of(st.floats(-50, 50, width=32), st.just(-math.inf))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.tuples(_number, _number, st.floats(-50, 50, width=32), _number), min_size=1, max_size=40),
    beta=st.floats(-3, 3),
    previous_beta=st.floats(0, 3),
    threshold=st.floats(0, 1),
)
def test_backends_agree_on_any_particles(
    rows: list[tuple[float, float, float, float]], beta: float, previous_beta: float, threshold: float
) -> None:
    log_weights, values, previous, ratio = torch.tensor(rows).T
    assert_agrees(
        log_weights, values, previous, beta, previous_beta, builds=[(level, 1) for level in _cpu.levels()],
        log_ratio=ratio, running=previous, ess_threshold=threshold, degenerate="keep",
    )  # fmt: skip


def test_it_is_the_update_followed_by_select() -> None:
    log_weights, values, previous = (normal(4, 500, seed=i, dtype=torch.float64) for i in range(3))
    values[2:] *= 0.01
    log_weights[2:] *= 0.01
    previous[2:] *= 0.01
    ratio, running = normal(4, 500, seed=7, dtype=torch.float64) * 0.1, torch.arange(2000).view(4, 500)
    got = reweight_select(log_weights, values, previous, 1.5, 0.5, log_ratio=ratio, running=running, seed=9, step=2)
    updated = log_weights + ((1.5 * values - 0.5 * previous) + ratio)
    chosen = select(updated, order="slots", seed=9, step=2)
    assert got.resampled.tolist() == [True, True, False, False]
    assert torch.equal(got.ess, chosen.ess)
    assert torch.equal(got.ancestors[:2], chosen.ancestors[:2])
    assert torch.equal(got.ancestors[2:], torch.arange(500, dtype=torch.int32).expand(2, -1))
    assert torch.equal(got.log_z_increment, torch.where(got.resampled, chosen.log_mean_weight, 0.0))
    assert torch.equal(got.log_weights, torch.where(got.resampled[:, None], 0.0, updated))
    assert torch.equal(got.values, values.gather(1, got.ancestors.long()))
    assert got.running is not None
    assert torch.equal(got.running, running.gather(1, got.ancestors.long()))


def test_float32_rounds_every_operation_of_the_update() -> None:
    log_weights, values, previous, ratio = (normal(1000, seed=i) for i in range(4))
    got = reweight_select(log_weights, values, previous, 0.1, 0.7, log_ratio=ratio, ess_threshold=0)
    change = torch.tensor(0.1) * values - torch.tensor(0.7) * previous
    assert torch.equal(got.log_weights, log_weights + (change + ratio))


def test_thresholds_zero_and_one() -> None:
    zeros = torch.zeros(2, 64)
    values = torch.stack([zeros[0], normal(64)])
    never = reweight_select(zeros, 50 * values, zeros, 1, 0, ess_threshold=0)
    always = reweight_select(zeros, values, zeros, 1, 0, ess_threshold=1)
    assert never.resampled.tolist() == [False, False]
    assert always.resampled.tolist() == [False, True], "equal weights stay"
    assert never.log_z_increment.tolist() == [0, 0]


def test_log_normaliser_does_not_depend_on_when_groups_resample() -> None:
    """Mean of Z over 3,000 runs of 8 steps against its exact value: 5 standard errors, false-alarm rate 3 x 6e-7."""
    table = torch.tensor([0.0, 1.0, -1.0, 0.5], dtype=torch.float64)
    exact = float(torch.exp(table).mean())
    for threshold in (0.0, 0.5, 1.0):
        log_weights = torch.zeros(3000, 16, dtype=torch.float64)
        token = torch.randint(4, (3000, 16), generator=torch.Generator().manual_seed(0))
        log_z, previous = torch.zeros(3000, dtype=torch.float64), torch.zeros_like(log_weights)
        for step in range(1, 9):
            out = reweight_select(
                log_weights, table[token], previous, step / 8, (step - 1) / 8, running=token, ess_threshold=threshold,
                seed=1, step=step,
            )  # fmt: skip
            assert out.running is not None
            log_weights, previous, token = out.log_weights, out.values, out.running
            log_z += out.log_z_increment
        z = torch.exp(log_z + log_weights.logsumexp(1) - math.log(16))
        assert abs(float(z.mean()) - exact) <= 5 * float(z.std()) / math.sqrt(3000), threshold


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_the_dead_stay_dead(backend: str) -> None:
    inf = math.inf
    log_weights = torch.tensor([-inf, 0.0, -inf, 0.0, 0.0])
    values = torch.tensor([1.0, -inf, -inf, 2.0, 1.0])
    previous = torch.tensor([-inf, 1.0, -inf, 1.0, 1.0])
    kept = reweight_select(log_weights, values, previous, 1.0, 1.0, ess_threshold=0, backend=backend)
    assert kept.log_weights.tolist() == [-inf, -inf, -inf, 1.0, 0.0]
    moved = reweight_select(log_weights, values, previous, 1.0, 1.0, ess_threshold=1, backend=backend)
    assert set(moved.ancestors.tolist()) == {3, 4}
    assert moved.log_weights.tolist() == [0.0] * 5
    ratio = torch.tensor([0.0, 0.0, 0.0, -inf, 0.0])
    blocked = reweight_select(
        log_weights, values, previous, 0.0, 0.0, log_ratio=ratio, ess_threshold=1, backend=backend
    )
    assert blocked.ancestors.tolist() == [4] * 5


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_a_group_without_weight_is_named_and_others_go_on(backend: str) -> None:
    log_weights, values, previous = (normal(3, 40, seed=i) for i in range(3))
    values[1] = -math.inf
    arguments = (log_weights, values, previous, 3.0, 0.0)
    with pytest.raises(DegenerateWeights, match=r"every updated weight is zero in group 1 of shape \(3, 40\)") as error:
        reweight_select(*arguments, backend=backend)
    assert error.value.groups == (1,)
    got = reweight_select(*arguments, degenerate="keep", seed=6, backend=backend)
    assert got.resampled.tolist() == [True, False, True]
    assert float(got.log_z_increment[1]) == -math.inf
    assert float(got.ess[1]) == 0
    assert got.ancestors[1].tolist() == list(range(40))
    alone = reweight_select(*(x[2:] for x in arguments[:3]), 3.0, 0.0, seed=expand_seed(6, 3)[2:], backend=backend)
    assert torch.equal(got.ancestors[2], alone.ancestors[0])


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("name", ["log_weights", "values", "previous_values", "log_ratio"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_refused_input_is_named_even_of_a_dead_particle(value: float, name: str, backend: str) -> None:
    inputs = {n: torch.zeros(3, 5000) for n in ("log_weights", "values", "previous_values", "log_ratio")}
    inputs["log_weights"][2, 4500] = -math.inf
    inputs[name][2, 4500] = value
    inputs[name][2, 4600] = value
    with pytest.raises(ValueError, match=f"{name}: {value} at group 2, index 4500 of shape"):
        reweight_select(**inputs, beta=1.0, previous_beta=1.0, backend=backend)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_updates_that_overflow_or_revive_are_refused(backend: str) -> None:
    zeros = torch.zeros(4)
    with pytest.raises(ValueError, match=r"the updated log-weight at index 2 of shape .* is above 1e9"):
        reweight_select(zeros, torch.tensor([0, 0, 3.0, 0]), zeros, 1e9, 0.0, backend=backend)
    with pytest.raises(ValueError, match=r"previous_values: -inf at index 1 of shape .*, but the particle is alive"):
        reweight_select(zeros, zeros, torch.tensor([0, -math.inf, 0, 0]), 1.0, 1.0, backend=backend)
    with pytest.raises(ValueError, match="beta: nan at group 0"):
        reweight_select(zeros, zeros, zeros, torch.tensor([math.nan]), 1.0, backend=backend)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"log_weights": torch.zeros(2, 3, 4)}, ValueError, r"expected \[N\] or \[G, N\]"),
        ({"log_weights": torch.zeros(0)}, ValueError, r"got \(0,\)"),
        ({"values": torch.zeros(4)}, ValueError, r"values: expected shape \(2, 3\) as log_weights, got \(4,\)"),
        ({"values": torch.zeros(2, 3).double()}, TypeError, "values: expected torch.float32 as log_weights"),
        ({"previous_values": [0.0]}, TypeError, "previous_values: expected a torch.Tensor, got list"),
        ({"log_ratio": torch.zeros(3)}, ValueError, "log_ratio: expected shape"),
        ({"running": torch.zeros(3)}, ValueError, "running: expected shape"),
        ({"running": torch.zeros(2, 3, dtype=torch.float16)}, TypeError, "running: expected a dtype of 4 or 8 bytes"),
        ({"beta": math.inf}, ValueError, "beta: expected a finite number, got inf"),
        ({"previous_beta": torch.zeros(5)}, ValueError, r"previous_beta: expected a number or shape \(2,\)"),
        ({"rule": "topk"}, ValueError, "rule: unknown value 'topk'; choose one of systematic"),
        ({"ess_threshold": 1.5}, ValueError, r"ess_threshold: expected a number in \[0, 1\], got 1.5"),
        ({"ess_threshold": math.nan}, ValueError, "ess_threshold: expected"),
        ({"degenerate": "off"}, ValueError, "degenerate: unknown value"),
        ({"seed": torch.zeros(3, dtype=torch.int64)}, ValueError, r"seed: expected shape \(2,\)"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    zeros = torch.zeros(2, 3)
    good = {"log_weights": zeros, "values": zeros, "previous_values": zeros, "beta": 1.0, "previous_beta": 1.0}
    with pytest.raises(error, match=message):
        reweight_select(**{**good, **arguments})


def test_inputs_stay_as_they_were_and_may_be_strided() -> None:
    log_weights, values, previous = (normal(60, 40, seed=i) for i in range(3))
    before = [x.clone() for x in (log_weights, values, previous)]
    strided = reweight_select(log_weights.T, values.T, previous.T, 2.0, 0.0, running=values.T)
    plain = reweight_select(*(x.T.contiguous() for x in before), 2.0, 0.0, running=before[1].T.contiguous())
    assert_same_bits(plain, strided, "strided")
    assert all(torch.equal(a, b) for a, b in zip(before, (log_weights, values, previous), strict=True))


def test_compiles_into_one_graph() -> None:
    def step(log_weights: Tensor, values: Tensor) -> Tensor:
        out = reweight_select(log_weights, values, values * 0, 2.0, 1.0, ess_threshold=1.0)
        return out.values + out.log_weights

    x, v = normal(3, 64), normal(3, 64, seed=1)
    assert torch.equal(torch.compile(step, fullgraph=True, backend="aot_eager")(x, v), step(x, v))
