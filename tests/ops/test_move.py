from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastguide.ops.move import move
from tests.specs import builds


def state(rows: int, seed: int = 0) -> list[Tensor]:
    """Return tensors of several dtypes, row sizes and ranks with ``rows`` rows."""
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(rows, 5, 3, generator=generator),
        torch.randint(0, 9, (rows,), generator=generator),
        torch.randn(rows, generator=generator),
        torch.randn(rows, 2, generator=generator, dtype=torch.float64),
        torch.rand(rows, 7, generator=generator) < 0.5,
        torch.randn(rows, 1, generator=generator).to(torch.bfloat16),
        torch.zeros(rows, 0),
    ]


def slots_order(groups: int, rows: int, seed: int = 0) -> Tensor:
    """Return ancestors whose survivors keep their slots."""
    generator = torch.Generator().manual_seed(seed)
    ancestors = torch.arange(rows).expand(groups, rows).clone()
    for g in range(groups):
        alive = torch.randperm(rows, generator=generator)[: max(1, rows // 2)]
        dead = torch.ones(rows, dtype=torch.bool)
        dead[alive] = False
        ancestors[g, dead] = alive[torch.randint(0, len(alive), (int(dead.sum()),), generator=generator)]
    return ancestors


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize(("groups", "rows", "draws"), [(1, 7, 7), (3, 5, 11), (4, 300, 200), (2, 9_000, 9_000)])
def test_kernel_agrees_with_reference(groups: int, rows: int, draws: int, dtype: torch.dtype) -> None:
    ancestors = torch.randint(0, rows, (groups, draws), generator=torch.Generator().manual_seed(1), dtype=dtype)
    tensors = state(groups * rows)
    expected = move(tensors, ancestors, backend="torch")
    flat = (ancestors.long() + torch.arange(groups)[:, None] * rows).flatten()
    for x, want in zip(tensors, expected, strict=True):
        assert torch.equal(x[flat], want)
    for variant in builds():
        for got, want in zip(move(tensors, ancestors, backend="cpu"), expected, strict=True):
            assert torch.equal(got, want), variant
            assert got.dtype == want.dtype


@pytest.mark.parametrize(("groups", "rows"), [(1, 1), (1, 8), (3, 50), (2, 9_000)])
def test_in_place_is_the_move_that_writes_dead_slots_only(groups: int, rows: int) -> None:
    ancestors = slots_order(groups, rows)
    expected = move(state(groups * rows), ancestors)
    for backend in ("torch", "cpu"):
        for _ in builds():
            tensors = state(groups * rows)
            addresses = [x.data_ptr() for x in tensors]
            moved = move(tensors, ancestors, inplace=True, backend=backend)
            assert [x.data_ptr() for x in moved] == addresses
            for got, want in zip(tensors, expected, strict=True):
                assert torch.equal(got, want)


def test_one_tensor_in_one_tensor_out() -> None:
    x, ancestors = torch.arange(8).view(4, 2), torch.tensor([3, 3, 0])
    assert move(x, ancestors).tolist() == [[6, 7], [6, 7], [0, 1]]
    assert move([x], ancestors)[0].tolist() == [[6, 7], [6, 7], [0, 1]]
    assert move((), ancestors) == []
    assert move(x, torch.tensor([0, 0, 2, 2]), inplace=True) is x
    assert x.tolist() == [[0, 1], [0, 1], [4, 5], [4, 5]]


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_out_is_written_and_returned(backend: str) -> None:
    ancestors = torch.randint(0, 50, (3, 20))
    tensors = state(150)
    out = [torch.full((60, *x.shape[1:]), 7).to(x.dtype) for x in tensors]
    moved = move(tensors, ancestors, out=out, backend=backend)
    for got, target, want in zip(moved, out, move(tensors, ancestors), strict=True):
        assert got is target
        assert torch.equal(got, want)
    assert move(tensors[0], ancestors, out=out[0], backend=backend) is out[0]
    with pytest.raises(ValueError, match=r"out\[1\]: expected shape \(60,\), got \(150,\)"):
        move(tensors, ancestors, out=[out[0], tensors[1], *out[2:]], backend=backend)
    with pytest.raises(TypeError, match=r"out: expected torch.float32, got torch.int64"):
        move(tensors[0], ancestors, out=out[1], backend=backend)
    with pytest.raises(ValueError, match=r"out: expected a list of 7 tensors, got list of 6"):
        move(tensors, ancestors, out=out[1:], backend=backend)
    with pytest.raises(ValueError, match=r"out: expected a tensor, got list of 1"):
        move(tensors[0], ancestors, out=out[:1], backend=backend)
    with pytest.raises(ValueError, match="out: expected none with inplace=True"):
        move(tensors[0], torch.arange(150), out=torch.empty(150, 5, 3), inplace=True, backend=backend)
    wide = torch.arange(240).view(120, 2)
    before = wide.clone()
    with pytest.raises(ValueError, match="out: must not overlap an input or itself"):
        move(wide[:60], ancestors % 20, out=wide[59:119], backend=backend)
    with pytest.raises(ValueError, match="out: must not overlap an input or itself"):
        move([before, before + 1], ancestors % 40, out=[wide[:60], wide[30:90]], backend=backend)
    assert torch.equal(wide, before)
    with pytest.raises(IndexError, match=r"ancestors\[0, 0\] is 50"):
        move(tensors[0], torch.full((3, 20), 50), out=out[0], backend=backend)


@pytest.mark.parametrize("width", [1_000, 1_024])
@pytest.mark.parametrize("offset", [0, 1])
def test_rows_too_many_for_the_caches_are_moved_alike(width: int, offset: int) -> None:
    # Long rows are streamed, past the head and tail of their cache lines.
    rows = 10_000
    memory = torch.randint(0, 256, (rows * width + 64,), dtype=torch.uint8)
    source, ancestors = memory[offset : offset + rows * width].view(rows, width), slots_order(1, rows)
    expected = source[ancestors[0]]
    out = torch.zeros(rows * width + 64, dtype=torch.uint8)
    target = out[offset : offset + rows * width].view(rows, width)
    for variant in builds():
        assert torch.equal(move(source, ancestors, out=target.zero_()), expected), variant
        assert torch.equal(move(source.clone(), ancestors, inplace=True), expected), variant
        assert not out[:offset].any()
        assert not out[offset + rows * width :].any()
    assert torch.equal(move(source, ancestors), expected)


def test_views_are_read_as_what_they_show() -> None:
    x, ancestors = torch.arange(24.0).view(4, 6), torch.tensor([1, 1, 3, 0])
    for view in (x.T.contiguous().T, x[:, ::2], x.view(4, 2, 3).transpose(1, 2), x[:1].expand(4, 6)):
        assert torch.equal(move(view, ancestors), view[ancestors])
    z = torch.complex(x, x)
    assert torch.equal(move(z.conj(), ancestors), z.conj()[ancestors])
    assert not move(x.clone().requires_grad_(), ancestors).requires_grad


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_wrong_arguments_are_refused_and_nothing_is_written(backend: str) -> None:
    x = torch.arange(12).view(6, 2)
    before = x.clone()
    with pytest.raises(IndexError, match=r"ancestors\[1, 0\] is 3, outside the 3 rows"):
        move(x, torch.tensor([[0, 1, 2], [3, 0, 0]]), backend=backend)
    with pytest.raises(IndexError, match=r"ancestors\[0, 2\] is -1"):
        move(x, torch.tensor([[0, 1, -1], [3, 0, 0]]), inplace=True, backend=backend)
    with pytest.raises(ValueError, match=r"ancestors\[1, 0\] is 1, but row 1 does not keep its place.*is 2"):
        move(x, torch.tensor([[0, 0, 0], [1, 2, 2]]), inplace=True, backend=backend)
    with pytest.raises(ValueError, match=r"ancestors: in place expects one a row, \[G, 6\]"):
        move(x, torch.tensor([0, 1]), inplace=True, backend=backend)
    with pytest.raises(ValueError, match=r"tensors\[0\]: in place expects a contiguous"):
        move(x[:, :1], torch.arange(6), inplace=True, backend=backend)
    with pytest.raises(ValueError, match=r"tensors\[0\]: requires a gradient"):
        move(x.double().requires_grad_(), torch.arange(6), inplace=True, backend=backend)
    with pytest.raises(ValueError, match=r"tensors\[0\]: expected equal parts for 4 groups, got shape \[6, 2\]"):
        move(x, torch.zeros(4, 2, dtype=torch.int64), backend=backend)
    with pytest.raises(ValueError, match=r"tensors\[1\]: expected 6 rows"):
        move([x, x[:5]], torch.arange(6), backend=backend)
    with pytest.raises(TypeError, match=r"ancestors: .*float32"):
        move(x, torch.zeros(6), backend=backend)
    with pytest.raises(ValueError, match="ancestors: expected shape"):
        move(x, torch.zeros(1, 1, 6, dtype=torch.int64), backend=backend)
    assert torch.equal(x, before)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_no_rows_and_no_draws(backend: str) -> None:
    assert move(torch.zeros(4, 3), torch.zeros(2, 0, dtype=torch.int64), backend=backend).shape == (0, 3)
    assert move(torch.zeros(0, 3), torch.zeros(1, 0, dtype=torch.int64), backend=backend).shape == (0, 3)
    with pytest.raises(IndexError, match="outside the 0 rows"):
        move(torch.zeros(0, 3), torch.zeros(2, dtype=torch.int64), backend=backend)


def test_compiles_into_one_graph() -> None:
    tensors, ancestors = state(6)[:4], torch.tensor([0, 0, 2, 2, 4, 4])

    def shift(tensors: list[Tensor], inplace: bool) -> list[Tensor]:
        return move([x + x for x in tensors], ancestors, inplace=inplace)

    def into(tensors: list[Tensor], out: list[Tensor]) -> list[Tensor]:
        return move([x + x for x in tensors], ancestors, out=out)

    out = [torch.zeros_like(x) for x in tensors]
    torch.compile(into, backend="aot_eager", fullgraph=True)(tensors, out)
    for got, want in zip(out, shift(tensors, False), strict=True):
        assert torch.equal(got, want)
    for inplace in (False, True):
        compiled = torch.compile(shift, backend="aot_eager", fullgraph=True)
        for got, want in zip(compiled(tensors, inplace), shift(tensors, False), strict=True):
            assert torch.equal(got, want)
