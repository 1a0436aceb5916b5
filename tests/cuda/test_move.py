"""CUDA's move against the CPU's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastguide import ops
from fastguide.cuda.move import move
from fastguide.ops import _native
from tests.cuda.device import here
from tests.cuda.status import new_status, read_status


def states(rows: int) -> list[Tensor]:
    """Return tensors of rows of many widths and alignments."""
    generator = torch.Generator().manual_seed(rows)
    shapes = {
        torch.float32: [(), (3,), (4,), (19,), (3, 8, 8)],
        torch.uint8: [(1,), (76,), (77,), (1030,)],
        torch.int64: [(), (5,)],
        torch.float16: [(3,)],
        torch.bool: [()],
        torch.complex128: [(2,)],
    }
    made = [
        torch.randint(0, 100, (rows, *shape), generator=generator).to(dtype)
        for dtype, each in shapes.items()
        for shape in each
    ]
    made.append(torch.randint(0, 100, (rows * 4 + 1,), generator=generator).float()[1:].view(rows, 4))  # unaligned
    return here([*made, torch.empty(rows, 0)])


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(("groups", "rows", "draws"), [(1, 1, 1), (1, 40, 97), (3, 17, 40), (5, 30, 8)])
def test_agrees_out_of_place(groups: int, rows: int, draws: int, dtype: torch.dtype) -> None:
    sources = states(groups * rows)
    ancestors = torch.randint(0, rows, (groups, draws), generator=torch.Generator().manual_seed(1)).to(dtype)
    targets = [s.new_empty((groups * draws, *s.shape[1:])) for s in sources]
    status = new_status()
    move(sources, targets, here(ancestors), rows, False, status)
    for source, got in zip(sources, targets, strict=True):
        assert torch.equal(ops.move(source.cpu(), ancestors), got.cpu())
    assert read_status(status) == (_native.OK, -1)


@pytest.mark.parametrize(("groups", "rows"), [(1, 1), (1, 300), (4, 50)])
def test_agrees_in_place(groups: int, rows: int) -> None:
    tensors = states(groups * rows)
    ancestors = ops.select(torch.randn(groups, rows) * 2, order="slots").ancestors
    expected = [ops.move(t.cpu(), ancestors) for t in tensors]
    status = new_status()
    move(tensors, tensors, here(ancestors), rows, True, status)
    for a, b in zip(expected, tensors, strict=True):
        assert torch.equal(a, b.cpu())
    assert read_status(status) == (_native.OK, -1)


def test_more_tensors_than_one_launch_takes() -> None:
    sources = here([torch.arange(20) + i for i in range(70)])
    targets = [torch.empty_like(s) for s in sources]
    ancestors = here(torch.arange(19, -1, -1)[None])
    move(sources, targets, ancestors, 20, False, new_status())
    assert all(torch.equal(t, s.flip(0)) for s, t in zip(sources, targets, strict=True))


def test_nothing_is_moved_by_ancestors_that_are_refused() -> None:
    x = here(torch.arange(40.0).view(8, 5))
    ancestors = here(torch.tensor([[0, 1, 2, 9, 4, -1, 6, 7]]))
    target, status = torch.zeros_like(x), new_status()
    move([x], [target], ancestors, 8, False, status)
    assert read_status(status) == (_native.OUT_OF_RANGE, 3)
    assert not target.any()

    status = new_status()
    move([x], [x], here(torch.tensor([[0, 0, 1, 3, 3, 5, 6, 7]])), 8, True, status)
    assert read_status(status) == (_native.INVALID_VALUE, 2)
    assert torch.equal(x, here(torch.arange(40.0).view(8, 5)))
