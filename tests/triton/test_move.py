from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastguide.ops import move, select
from tests.triton.agreement import assert_agrees, on_device
from tests.triton.device import DEVICE

pytest.importorskip("triton")


def states(rows: int) -> list[Tensor]:
    """Return tensors of rows of many sizes and dtypes, one of them not contiguous and one without elements."""
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(rows, 3, 70, generator=generator),
        torch.randint(0, 20, (rows, 1100), generator=generator),
        torch.randn(rows, 5, generator=generator).half(),
        torch.randn(rows, 33, generator=generator).to(torch.bfloat16)[:, 1::2],
        torch.randn(rows, generator=generator, dtype=torch.complex128),
        torch.rand(rows, 3, generator=generator) > 0.5,
        torch.empty(rows, 0),
    ]


def slots(groups: int, n: int) -> Tensor:
    log_weights = torch.randn(groups, n, generator=torch.Generator().manual_seed(1)) * 2
    return select(log_weights, order="slots").ancestors


@pytest.mark.parametrize(("draws", "dtype"), [(40, torch.int32), (7, torch.int64)])
def test_rows_follow_their_ancestors(draws: int, dtype: torch.dtype) -> None:
    ancestors = torch.randint(0, 40, (3, draws), generator=torch.Generator().manual_seed(2)).to(dtype)
    assert_agrees(move, "of three groups", tensors=states(120), ancestors=ancestors)
    assert_agrees(move, "of one group", tensors=states(40)[2], ancestors=ancestors[0])


def test_rows_are_written_where_they_are_asked_for() -> None:
    x, ancestors = torch.arange(12.0, device=DEVICE).view(6, 2), torch.tensor([5, 0, 5], device=DEVICE)
    out = torch.zeros(4, 3, 2, device=DEVICE)[1]
    assert move(x, ancestors, out=out, backend="triton") is out
    assert torch.equal(out, x[ancestors])


def test_in_place_writes_dead_rows_only() -> None:
    ancestors = slots(2, 50)
    expected = move(states(100), ancestors)
    moving = [x.contiguous().to(DEVICE) for x in states(100)]
    move(moving, ancestors.to(DEVICE), inplace=True, backend="triton")
    for x, y in zip(expected, moving, strict=True):
        assert torch.equal(x, y.cpu())


@pytest.mark.parametrize("inplace", [False, True])
def test_the_first_ancestor_out_of_range_is_named_and_nothing_moves(inplace: bool) -> None:
    x = torch.arange(3000.0, device=DEVICE)
    for wrong in (-1, 1500, 2**31 - 1):
        ancestors = on_device(torch.arange(1500).repeat(2, 1))
        ancestors[1, 7] = ancestors[1, 1200] = wrong
        ancestors[0, 3] = 5
        ancestors[0, 5] = 6
        with pytest.raises(IndexError, match=rf"ancestors\[1, 7\] is {wrong}, outside the 1500 rows"):
            move(x, ancestors, inplace=inplace, backend="triton")
        assert torch.equal(x, torch.arange(3000.0, device=DEVICE))


def test_in_place_refuses_rows_that_do_not_keep_their_place() -> None:
    x = torch.arange(8.0, device=DEVICE)
    with pytest.raises(ValueError, match=r"ancestors\[1, 0\] is 2, but row 2 does not keep its place"):
        move(x, torch.tensor([[0, 0, 2, 3], [2, 1, 3, 3]], device=DEVICE), inplace=True, backend="triton")
    assert torch.equal(x, torch.arange(8.0, device=DEVICE))
