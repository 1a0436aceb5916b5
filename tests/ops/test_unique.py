from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastguide.ops import _native
from fastguide.ops.unique import Unique, unique
from tests.specs import builds


def rows_with_repeats(rows: int, width: int, distinct: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.randint(0, 200, (distinct, width), generator=generator)
    return kinds[torch.randint(0, distinct, (rows,), generator=generator)].to(dtype)


def same(a: Unique, b: Unique) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("rows", [1, 2, 100, 5_000, 40_000])
@pytest.mark.parametrize("distinct", [1, 37, 100_000])
@pytest.mark.parametrize("width", [1, 7, 8, 15, 16, 17, 31, 76])
def test_kernel_agrees_with_reference(rows: int, distinct: int, width: int) -> None:
    x = rows_with_repeats(rows, width, distinct, torch.uint8)
    expected = unique(x, backend="torch")
    for variant in builds():
        assert same(unique(x, backend="cpu"), expected), variant


@pytest.mark.parametrize(
    "dtype",
    [torch.bool, torch.int8, torch.int16, torch.int32, torch.int64, torch.float64, torch.bfloat16, torch.cfloat],
)
def test_any_dtype_and_shape(dtype: torch.dtype) -> None:
    x = rows_with_repeats(300, 6, 40, dtype).view(300, 2, 3)
    got = unique(x)
    assert same(got, unique(x, backend="torch"))
    assert torch.equal(x[got.representatives][got.inverse], x)
    assert torch.equal(got.counts, got.inverse.bincount())


def test_representatives_are_first_occurrences_in_order() -> None:
    got = unique(torch.tensor([[5, 5], [1, 2], [5, 5], [0, 0], [1, 2], [5, 5]]))
    assert got.representatives.tolist() == [0, 1, 3]
    assert got.inverse.tolist() == [0, 1, 0, 2, 1, 0]
    assert got.counts.tolist() == [3, 2, 1]


@pytest.mark.parametrize("hash_mask", [0, 1, 0xFF, 0xFF << 56])
def test_collisions_of_a_weak_hash_change_nothing(hash_mask: int) -> None:
    x = rows_with_repeats(6_000, 19, 700, torch.uint8)
    expected = unique(x, backend="torch")
    for variant in builds():
        outputs = [torch.empty(len(x), dtype=torch.int64) for _ in range(3)]
        code, _, distinct = _native.unique(x, *outputs, hash_mask=hash_mask)
        assert code == _native.OK
        got = Unique(outputs[0][:distinct], outputs[1], outputs[2][:distinct])
        assert same(got, expected), variant


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=1, max_size=40))
def test_any_small_batch(rows: list[list[int]]) -> None:
    got = unique(torch.tensor(rows, dtype=torch.int16))
    seen: dict[tuple[int, ...], int] = {}
    assert got.inverse.tolist() == [seen.setdefault(tuple(row), len(seen)) for row in rows]
    assert got.representatives.tolist() == [rows.index(list(row)) for row in seen]


def test_rows_are_compared_by_their_bytes() -> None:
    x = torch.tensor([[0.0], [-0.0], [torch.nan], [torch.nan]])
    assert unique(x).inverse.tolist() == [0, 1, 2, 2]
    assert unique(x, backend="torch").inverse.tolist() == [0, 1, 2, 2]


def test_views_are_read_as_what_they_show() -> None:
    x = rows_with_repeats(300, 6, 40, torch.int64)
    assert same(unique(x.T.contiguous().T), unique(x))
    assert same(unique(x[:, ::2]), unique(x[:, ::2].clone()))
    z = torch.complex(x.double(), x.double())
    assert same(unique(torch.cat([z, z.conj()])), unique(torch.cat([z, z.conj().resolve_conj()])))


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_empty_rows(backend: str) -> None:
    assert [x.tolist() for x in unique(torch.zeros(0, 3), backend=backend)] == [[], [], []]
    assert [x.tolist() for x in unique(torch.zeros(3, 0), backend=backend)] == [[0], [0, 0, 0], [3]]
    with pytest.raises(ValueError, match=r"rows: .*scalar"):
        unique(torch.tensor(3), backend=backend)


def test_compiles_into_one_graph() -> None:
    x = rows_with_repeats(30, 6, 4, torch.int64)

    def distinct(x: Tensor) -> Tensor:
        return x[unique(x + 1).representatives]

    assert torch.equal(torch.compile(distinct, backend="aot_eager", fullgraph=True)(x), distinct(x))
