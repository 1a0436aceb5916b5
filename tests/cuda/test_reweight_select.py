"""CUDA's reweight_select against the CPU's, bit for bit."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from fastguide import ops
from fastguide.cuda.reweight_select import reweight_select
from fastguide.ops import _native
from tests.cuda.device import back, here
from tests.cuda.status import new_status, read_status
from tests.ops.test_select import normal
from tests.specs import assert_same_bits


def run(
    log_weights: Tensor, values: Tensor, previous_values: Tensor, beta: Any, previous_beta: Any, *,
    log_ratio: Tensor | None = None, running: Tensor | None = None, rule: str = "systematic",
    ess_threshold: float = 0.5, seed: Any = 0, step: Any = 0, states: Sequence[Tensor] = (),
) -> tuple[ops.ReweightSelection, Tensor]:  # fmt: skip
    lead = log_weights.shape[:-1]
    outputs = here(
        (
            torch.full_like(log_weights, math.nan),
            torch.full_like(log_weights, math.nan),
            torch.empty(0) if running is None else torch.full_like(running, -7),
            torch.full(log_weights.shape, -7, dtype=torch.int32),
            torch.zeros(lead, dtype=torch.bool),
            torch.full(lead, math.nan, dtype=torch.float64),
            torch.full(lead, math.nan, dtype=torch.float64),
        )
    )
    betas, beta = (here(beta.double()), 0.0) if isinstance(beta, Tensor) else (None, beta)
    previous = (here(previous_beta.double()), 0.0) if isinstance(previous_beta, Tensor) else (None, previous_beta)
    seeds, number = (here(seed), 0) if isinstance(seed, Tensor) else (None, seed)
    status = new_status()
    inputs = here([log_weights, values, previous_values, log_ratio, running])
    code = ("systematic", "stratified").index(rule)
    reweight_select(
        inputs, betas, beta, *previous, code, ess_threshold, seeds, number, here(step), outputs, status, states
    )
    outputs = tuple(map(back, outputs))
    return ops.ReweightSelection(*outputs[:2], None if running is None else outputs[2], *outputs[3:]), status


def particles(groups: int, n: int, dtype: torch.dtype) -> list[Tensor]:
    return [normal(groups, n, seed=seed, dtype=dtype) for seed in range(4)]


@pytest.mark.parametrize("n", [1, 100, 700, 4_096, 9_001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_agrees(dtype: torch.dtype, n: int) -> None:
    log_weights, values, previous, ratio = particles(3, n, dtype)
    values[0] *= 5  # uneven: this group resamples sooner
    values[1, 1::2] = -math.inf
    previous[1, 1::4] = -math.inf
    running = torch.arange(3 * n).view(3, n)
    for threshold in (0.0, 0.5, 1.0):
        for kwargs in (
            {},
            {"log_ratio": ratio, "running": running, "rule": "stratified", "seed": torch.tensor([5, 1, 9])},
            {"running": running.float()},
        ):
            for betas in ((1.5, 0.5), (torch.tensor([0.1, 2.0, 9.0]), torch.tensor([0.0, 1.0, 3.0]))):
                arguments = (log_weights, values, previous, *betas)
                settings = {**kwargs, "ess_threshold": threshold}
                expected = ops.reweight_select(*arguments, **settings, degenerate="keep", backend="cpu")
                got, status = run(*arguments, **settings)
                assert_same_bits(expected, got, str(settings))
                assert read_status(status) == (_native.OK, -1)


@pytest.mark.parametrize(("groups", "n"), [(1, 1), (3, 100), (2, 5_000), (300, 20)])
def test_states_follow(groups: int, n: int) -> None:
    log_weights, values, previous, _ = particles(groups, n, torch.float32)
    values[0] *= 5
    generator = torch.Generator().manual_seed(0)
    wide = torch.randint(0, 100, (groups * n, 700), generator=generator).float()  # moved by a launch of its own
    narrow = [
        torch.randint(0, 100, (groups * n, width), generator=generator).to(dtype)
        for width, dtype in (
            (1, torch.uint8),
            (7, torch.uint8),
            (3, torch.float16),
            (4, torch.float32),
            (3, torch.int64),
        )
    ]
    for states in ([], narrow, [*narrow, torch.empty(groups * n, 0)], [wide]):
        moved = here([x.clone() for x in states])
        out, _ = run(log_weights, values, previous, 3.0, 1.0, ess_threshold=0.7, states=moved)
        for before, after in zip(states, moved, strict=True):
            assert torch.equal(ops.move(before, out.ancestors.view(groups, n)), after.cpu())
    assert n == 1 or bool((out.ancestors != torch.arange(n)).any())


def test_seed_and_step_of_the_device() -> None:
    log_weights, values, previous, _ = particles(2, 5_000, torch.float32)
    seeds = torch.tensor([11, -5])
    for rule in ("systematic", "stratified"):
        settings = {"rule": rule, "seed": seeds, "ess_threshold": 1.0}
        expected = ops.reweight_select(log_weights, values, previous, 1.5, 0.5, step=2**20 + 3, **settings)
        step, betas = torch.tensor(2**20 + 3), (torch.tensor([1.5, 1.5]), torch.tensor([0.5, 0.5]))
        got, _ = run(log_weights, values, previous, *betas, step=step, **settings)
        assert_same_bits(expected, got, rule)


def test_a_group_whose_weights_are_all_zero_is_carried() -> None:
    for n in (50, 5_000):
        log_weights, values, previous, _ = particles(3, n, torch.float32)
        values[1] = -math.inf
        expected = ops.reweight_select(log_weights, values, previous, 2.0, 1.0, ess_threshold=1.0, degenerate="keep")
        got, status = run(log_weights, values, previous, 2.0, 1.0, ess_threshold=1.0)
        assert_same_bits(expected, got, str(n))
        assert read_status(status) == (_native.DEGENERATE, 1)


@pytest.mark.parametrize("n", [50, 5_000])
@pytest.mark.parametrize("which", range(4))
def test_the_first_refused_particle_is_named(which: int, n: int) -> None:
    for bad in (math.nan, math.inf):
        inputs = particles(2, n, torch.float32)
        inputs[which][1, n // 2] = bad
        inputs[which][1, n - 1] = bad
        log_weights, values, previous, ratio = inputs
        _, status = run(log_weights, values, previous, 2.0, 1.0, log_ratio=ratio)
        assert read_status(status) == (_native.INVALID_VALUE, n + n // 2)
