"""CUDA's selection against the CPU's, bit for bit."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastguide import ops
from fastguide.cuda.select import select
from fastguide.ops import _native
from tests.cuda.device import back, here
from tests.cuda.status import new_status, read_status
from tests.ops.test_select import adversaries, normal
from tests.specs import assert_same_bits

RULES = ("systematic", "stratified", "multinomial", "residual", "argmax")


def run(log_weights: Tensor, k: int | None = None, rule: str = "systematic", order: str = "sorted", seed: Any = 0,
        step: Any = 0) -> tuple[ops.Selection, Tensor]:  # fmt: skip
    """Return what the kernel writes into outputs that hold garbage before, and the status."""
    lead = log_weights.shape[:-1]
    k = log_weights.shape[-1] if k is None else k
    out = ops.Selection(
        here(torch.full((*lead, k), -7, dtype=torch.int32)),
        here(torch.full(lead, math.nan, dtype=torch.float64)),
        here(torch.full(lead, math.nan, dtype=torch.float64)),
    )
    status = new_status()
    seeds, number = (here(seed), 0) if isinstance(seed, Tensor) else (None, seed)
    code = RULES.index(rule)
    select(here(log_weights), k, code, order == "slots", seeds, number, here(step), *out, status)
    return back(out), status


def assert_agrees(log_weights: Tensor, what: str, **kwargs: Any) -> None:
    expected = ops.select(log_weights.cpu(), **kwargs, degenerate="keep", backend="cpu")
    got, status = run(log_weights, **kwargs)
    assert_same_bits(expected, got, what)
    dead = (expected.ess.reshape(-1) == 0).nonzero().flatten().tolist()
    assert read_status(status) == ((_native.DEGENERATE, dead[0]) if dead else (_native.OK, -1)), what


@pytest.mark.parametrize("n", [1, 7, 128, 129, 1024, 1025, 4096, 4097, 12_289, 20_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees_on_adversarial_weights(dtype: torch.dtype, n: int) -> None:
    for i, (name, log_weights) in enumerate(adversaries(n, dtype).items()):
        rule = ("systematic", "stratified", "argmax")[i % 3]
        k = (1, n, max(1, n // 3), 3 * n + 1)[i % 4]
        assert_agrees(log_weights, name, k=k, rule=rule, seed=i, step=n)
        assert_agrees(log_weights, name, rule=rule, order="slots", seed=i, step=n)


def test_slots_of_one_heavy_block_are_filled_by_many() -> None:
    for heavy in (0, 5_000, 39_999):
        x = torch.full((40_000,), -40.0)
        x[heavy] = 0
        x[heavy // 2 : heavy // 2 + 100] = -8.0
        for order in ("sorted", "slots"):
            for rule in ("systematic", "stratified"):
                assert_agrees(x, f"item {heavy} dominates", rule=rule, order=order)
        assert_agrees(x, f"item {heavy} dominates, many draws", k=150_000)
    assert_agrees(normal(50), "many draws from few", k=100_000)


def test_agrees_on_many_groups() -> None:
    assert_agrees(normal(200, 3, 8), "children of parents", k=1, rule="residual", seed=3)
    assert_agrees(normal(200, 31), "odd size", k=31, rule="stratified", order="slots", seed=3)
    assert_agrees(normal(3, 9_001), "groups of several blocks", order="slots", seed=torch.tensor([4, 9, 2]))
    dead = normal(5, 5_000)
    dead[2] = -math.inf
    dead[4, ::2] = -math.inf
    assert_agrees(dead, "a group without weight", order="slots")
    assert_agrees(dead, "a group without weight", k=9_000)


def test_many_blocks_are_folded_by_a_launch_of_their_own(where, emulated_module) -> None:
    if where == "gpu":
        for order in ("sorted", "slots"):
            assert_agrees(normal(5_000_001), "2^22 items and more", order=order)
        return
    emulated_module.set_few(2)
    try:
        for order in ("sorted", "slots"):
            for name, log_weights in adversaries(20_000, torch.float32).items():
                assert_agrees(log_weights, name, order=order, rule="stratified", seed=5)
            assert_agrees(normal(2, 13_000), "two rows", order=order)
    finally:
        emulated_module.set_few(1024)


def test_a_view_that_is_not_aligned() -> None:
    x = here(normal(9_002))[1:]
    assert x.data_ptr() % 16
    for order in ("sorted", "slots"):
        assert_agrees(x, "unaligned", order=order)


def test_seed_and_step_of_the_device() -> None:
    x = normal(3, 300)
    seeds = torch.tensor([5, 6, 7])
    first, _ = run(x, seed=seeds, step=torch.tensor([4]))
    assert_same_bits(ops.select(x, seed=seeds, step=4), first, "step in a tensor")


@pytest.mark.parametrize("n", [100, 3_000, 9_000])
def test_the_first_refused_log_weight_is_named(n: int) -> None:
    for value in (math.nan, math.inf, 2e9):
        for order in ("sorted", "slots"):
            x = normal(3, n)
            x[1, n // 2] = value
            x[1, n // 3] = value
            x[2, 0] = value
            out, status = run(x, order=order)
            assert read_status(status) == (_native.INVALID_VALUE, n + n // 3)
            assert bool(((out.ancestors >= 0) & (out.ancestors < n)).all())  # so that nothing reads past a row
            assert_same_bits(ops.select(x[:1], order=order).ancestors, out.ancestors[:1], "the row before")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_agrees_on_any_weights(data: st.DataObject) -> None:
    n = data.draw(st.sampled_from([1, 2, 33, 130, 700, 1_500, 4_100]))
    x = normal(data.draw(st.integers(1, 3)), n, seed=data.draw(st.integers(0, 2**30)))
    x = x * data.draw(st.sampled_from([0.0, 0.1, 3.0, 40.0])) + data.draw(st.sampled_from([-2_000.0, 0.0, 500.0]))
    if data.draw(st.booleans()):
        x[:, data.draw(st.integers(0, n - 1)) :] = -math.inf
    order = data.draw(st.sampled_from(["sorted", "slots"]))
    k = n if order == "slots" else data.draw(st.integers(1, 2 * n + 3))
    rule = data.draw(st.sampled_from(["systematic", "stratified", "argmax"]))
    assert_agrees(x, "any", k=k, rule=rule, order=order, seed=data.draw(st.integers(0, 2**64 - 1)))
