from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastguide.ops import unique
from tests.triton.agreement import assert_agrees
from tests.triton.device import DEVICE

pytest.importorskip("triton")


def rows(count: int, kinds: int, *shape: int, seed: int = 0) -> Tensor:
    """Return rows of ``kinds`` kinds, which differ in their last element if in no other."""
    generator = torch.Generator().manual_seed(seed)
    distinct = torch.randint(0, 3, (kinds, *shape), generator=generator)
    distinct.view(kinds, -1)[:, -1] = torch.arange(kinds)
    return distinct[torch.randint(0, kinds, (count,), generator=generator)]


@pytest.mark.parametrize(
    "x",
    [
        rows(700, 90, 7),
        rows(300, 299, 2, 50),
        rows(60, 9, 3).bool(),
        rows(90, 30, 5).to(torch.uint8),
        rows(1500, 1, 1).int(),
        torch.tensor([0.0, -0.0, math.nan, 1.0, math.nan, 0.0]),
        rows(1, 1, 4),
        rows(50, 20, 9).half()[:, 1:],
        torch.randn(3000, generator=torch.Generator().manual_seed(1)),
    ],
    ids=lambda x: f"{x.dtype}-{list(x.shape)}",
)
def test_rows_are_named_as_by_the_reference(x: Tensor) -> None:
    assert_agrees(unique, "rows", rows=x)


def test_a_weak_hash_costs_no_answer() -> None:
    from fastguide.triton.unique import unique as launch

    x = rows(200, 40, 6).to(DEVICE)
    expected = unique(x, backend="torch")
    representatives, inverse, counts = (torch.empty(200, dtype=torch.int64, device=DEVICE) for _ in range(3))
    distinct = torch.empty(1, dtype=torch.int64, device=DEVICE)
    launch(x, representatives, inverse, counts, distinct, hash_bits=2)
    u = int(distinct)
    for a, b in zip(expected, (representatives[:u], inverse, counts[:u]), strict=True):
        assert torch.equal(a, b)
