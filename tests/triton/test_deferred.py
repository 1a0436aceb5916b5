"""Selection, reweighting and moves by Triton read nothing from the device where checks are deferred."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastguide.deferred import Deferred, deferred
from fastguide.ops import move, reweight_select, select
from tests.test_deferred import HostReads
from tests.triton.device import DEVICE

pytest.importorskip("triton")


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(DEVICE)


def all_of_a_step(log_weights: Tensor, values: Tensor, states: Tensor) -> list[Tensor]:
    drawn = [
        select(log_weights, k=7, rule=rule, seed=3, backend="triton").ancestors
        for rule in ("systematic", "multinomial", "gumbel_topk")
    ]
    kept = reweight_select(
        log_weights,
        values,
        values + 1,
        1.0,
        0.5,
        running=values,
        ess_threshold=1.0,
        degenerate="keep",
        backend="triton",
    )
    moved = [states.clone(), values.reshape(-1).clone()]
    move(moved, kept.ancestors, inplace=True, backend="triton")
    return [*drawn, *(x for x in kept if x is not None), *moved, move(states, drawn[0], backend="triton")]


@pytest.mark.parametrize("n", [20, 4200])
def test_the_host_reads_nothing_and_results_are_the_same(n: int) -> None:
    arguments = normal(2, n), normal(2, n) * 3, normal(2 * n, 5)
    expected = all_of_a_step(*arguments)
    later = Deferred()
    with deferred(later), HostReads():
        got = all_of_a_step(*arguments)
    later.check()
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


def test_errors_are_told_when_they_are_asked_for() -> None:
    x, later = normal(3, 9), Deferred()
    x[1, 2] = math.nan
    with deferred(later):
        select(x, backend="triton")
        states = torch.arange(9.0, device=DEVICE)
        move(states, torch.full((9,), 9, device=DEVICE), inplace=True, backend="triton")
    assert torch.equal(states, torch.arange(9.0, device=DEVICE))
    with pytest.raises(ValueError, match=f"select: refused a value at flat index {9 + 2}"):
        later.check()
