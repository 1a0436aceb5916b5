from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastguide.deferred import Deferred, deferred
from fastguide.errors import DegenerateWeights
from fastguide.ops import Selection, _triton, select
from tests.triton.agreement import assert_agrees
from tests.triton.device import DEVICE

pytest.importorskip("triton")

RULES = ["systematic", "stratified", "multinomial", "residual", "argmax", "topk", "gumbel_topk"]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def adversaries(n: int, dtype: torch.dtype) -> Tensor:
    """Return rows of ``n`` log-weights on which float prefix sums, or a single scale, go wrong."""
    x = normal(n, dtype=dtype)
    rows = [x * sigma + offset for sigma, offset in ((1, 0), (5, -3000), (30, 3000))]
    rows += [torch.full_like(x, -14.0), torch.where(x > 0, x, -math.inf), torch.zeros_like(x), x.round()]
    rows += [torch.full_like(x, -math.inf), torch.linspace(-1.1e9, 1e9, n, dtype=torch.float64).to(dtype), x.clone()]
    rows[3][n // 2] = 0
    rows[-1][: n // 2] -= 400
    rows[-1][-(n // 4) :] += 60
    return torch.stack(rows)


@pytest.mark.parametrize("rule", RULES)
def test_rows_of_one_block_agree(rule: str) -> None:
    for m, k, dtype in ((8, 1, torch.float32), (33, 33 + 20 * (rule in RULES[:5]), torch.float64)):
        x = adversaries(m, dtype)
        assert_agrees(select, f"M = {m}", log_weights=x, k=k, rule=rule, seed=m, step=3, degenerate="keep")
    x, seeds = adversaries(60, torch.float64).view(5, 2, 60), torch.arange(5) * 2**61 - 7
    assert_agrees(select, "slots", log_weights=x, rule=rule, order="slots", seed=seeds, step=1, degenerate="keep")


@pytest.mark.parametrize("rule", RULES)
def test_rows_as_long_as_a_block_agree(rule: str) -> None:
    order = "sorted" if rule in ("stratified", "topk") else "slots"
    assert_agrees(select, order, log_weights=normal(1, 4096) * 4, rule=rule, order=order, seed=2**63 + 1)


@pytest.mark.parametrize("rule", RULES)
def test_rows_of_two_blocks_agree(rule: str) -> None:
    x = adversaries(4300, torch.float32)
    rest = {"rule": rule, "degenerate": "keep", "step": 2**28 - 1}
    assert_agrees(select, "sorted", log_weights=x[[7, 8]].double(), k=700, seed=5, **rest)
    assert_agrees(select, "slots", log_weights=x[[4, 9]], order="slots", seed=2**40, **rest)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", RULES)
def test_rows_of_many_blocks_agree(rule: str, dtype: torch.dtype) -> None:
    x = adversaries(9001, dtype)
    for k, order in ((700, "sorted"), (9001, "slots")):
        assert_agrees(select, order, log_weights=x, k=k, rule=rule, order=order, seed=5, degenerate="keep")


@pytest.mark.parametrize("rule", ["systematic", "multinomial", "residual"])
def test_more_draws_than_items_agree(rule: str) -> None:
    assert_agrees(select, "K > 4,096", log_weights=normal(2, 3, 50), k=5000, rule=rule, seed=1)


def test_a_row_of_more_blocks_than_one_program_reads_at_once_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of two blocks instead of 1,024, so that 9,001 items take two turns."""
    from fastguide.triton import _blocks

    monkeypatch.setattr(_blocks, "_CHUNK", _blocks.tl.constexpr(2))
    x = adversaries(9001, torch.float32)[9]
    assert_agrees(select, "chunks", log_weights=x, rule="systematic", order="slots", seed=3)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(
    weights=st.lists(
        st.one_of(st.floats(-60, 60, width=32), st.just(-math.inf), st.floats(-2e9, 1e9, width=32), st.just(1.0)),
        min_size=1,
        max_size=40,
    ),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    k=st.integers(1, 100),
    rule=st.sampled_from(RULES),
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**28 - 1),
)
def test_any_weights_agree(weights: list[float], dtype: torch.dtype, k: int, rule: str, seed: int, step: int) -> None:
    x = torch.tensor(weights, dtype=dtype)
    k = min(k, len(weights)) if rule in RULES[5:] else k
    assert_agrees(select, rule, log_weights=x, k=k, rule=rule, seed=seed, step=step, degenerate="keep")
    assert_agrees(select, rule, log_weights=x, rule=rule, order="slots", seed=seed, step=step, degenerate="keep")


def call(x: Tensor, **arguments: Any) -> Selection:
    return select(x.to(DEVICE), backend="triton", **arguments)


@pytest.mark.parametrize("n", [8, 4200])
def test_the_first_refused_log_weight_is_named(n: int) -> None:
    for value in (math.nan, math.inf, 2e9):
        x = normal(4, n)
        x[3, 7] = x[2, 5] = x[2, n - 1] = value
        with pytest.raises(ValueError, match=r"log_weights: .* at group 2, index 5"):
            call(x, degenerate="keep")


def test_degenerate_groups_are_named_or_kept() -> None:
    x = normal(3, 6)
    x[1] = -math.inf
    with pytest.raises(DegenerateWeights, match="group 1"):
        call(x)
    with pytest.raises(DegenerateWeights, match="fewer than the 5 items"):
        call(torch.where(torch.arange(6) < 3, normal(1, 6), -math.inf), k=5, rule="topk")
    kept = call(x, degenerate="keep")
    assert kept.ancestors[1].tolist() == list(range(6))
    assert kept.ess[1] == 0


def test_results_are_written_where_they_are_asked_for() -> None:
    x = normal(2, 40).to(DEVICE)
    expected = call(x, k=3)
    out = Selection(*(torch.zeros_like(t) for t in expected))
    assert call(x, k=3, out=out) is out
    assert all(torch.equal(a, b) for a, b in zip(expected, out, strict=True))


def test_errors_are_raised_at_the_end_where_checks_are_deferred() -> None:
    @deferred()
    def many(*rows: Tensor, **options: str) -> None:
        for x in rows:
            call(x.to(DEVICE), **options)

    many(normal(3, 9), normal(2, 5))
    many(torch.full((3, 9), -math.inf), degenerate="keep")
    with pytest.raises(ValueError, match="select: refused a value at flat index 1"):
        many(normal(3, 9), torch.tensor([1.0, math.nan]), normal(3, 9))
    with pytest.raises(DegenerateWeights, match="row 0"):
        many(torch.full((3, 9), -math.inf))
    checks = Deferred()
    for _ in range(2):
        with deferred(checks):
            call(torch.tensor([1.0, math.nan], device=DEVICE))
    with pytest.raises(ValueError, match="select: refused a value"):
        checks.check()


def test_a_step_on_the_device_is_read_there() -> None:
    from fastguide.triton.select import select as launch

    x = normal(3, 50).to(DEVICE)
    expected = call(x, seed=4, step=9)
    out = [torch.empty_like(t) for t in expected]
    status = _triton._load("_launch").new_status(DEVICE)
    launch(x, 50, 0, False, None, 4, torch.tensor([9], device=DEVICE), *out, status)
    assert all(torch.equal(a, b) for a, b in zip(expected, out, strict=True))
