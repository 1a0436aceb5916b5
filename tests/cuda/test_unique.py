"""CUDA's unique against the CPU's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastguide import ops
from fastguide.cuda.unique import unique
from tests.cuda.device import back, here
from tests.specs import assert_same_bits


def assert_agrees(rows: Tensor, what: str, hash_mask: int = 2**64 - 1) -> None:
    n = len(rows)
    outputs = here([torch.full((m,), -7) for m in (n, n, n, 1)])
    unique(here(rows), *outputs, hash_mask)
    representatives, inverse, counts, distinct = map(back, outputs)
    u = int(distinct)
    assert_same_bits(ops.unique(rows.cpu()), (representatives[:u], inverse, counts[:u]), what)
    assert not representatives[u:].any()
    assert not counts[u:].any()


@pytest.mark.parametrize("hash_mask", [2**64 - 1, 7, 0])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((1, 4), torch.float32),
        ((700, 2), torch.uint8),
        ((5000, 1), torch.int64),
        ((300, 76), torch.uint8),
        ((300, 77), torch.uint8),
        ((60, 80), torch.int64),
        ((40, 3, 100), torch.float16),
    ],
)
def test_agrees(shape: tuple[int, ...], dtype: torch.dtype, hash_mask: int) -> None:
    if hash_mask == 0 and shape[0] > 1000:
        return  # every row would be compared with every kind
    generator = torch.Generator().manual_seed(3)
    kinds = torch.randint(0, 50, (max(1, shape[0] // 4), *shape[1:]), generator=generator).to(dtype)
    rows = kinds[torch.randint(0, len(kinds), (shape[0],), generator=generator)]
    assert_agrees(rows, "a quarter differ", hash_mask)
    assert_agrees(rows[:1].expand(shape).contiguous(), "all equal", hash_mask)


def test_rows_that_differ_in_their_last_byte_alone() -> None:
    for width in (8, 13, 300, 1001):
        rows = torch.zeros(200, width, dtype=torch.uint8)
        rows[:, -1] = torch.arange(200)
        assert_agrees(rows, f"{width} bytes")


def test_bytes_decide_and_not_numbers() -> None:
    assert_agrees(torch.tensor([[0.0], [-0.0], [torch.nan], [torch.nan], [0.0]]), "zeros and NaN")


def test_a_view_that_is_not_aligned() -> None:
    flat = torch.randint(0, 3, (1 + 90 * 8,), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    assert_agrees(here(flat)[1:].view(90, 8), "unaligned")


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(n=st.integers(1, 600), width=st.integers(1, 40), kinds=st.integers(1, 300), seed=st.integers(0, 2**30))
def test_agrees_on_any_rows(n: int, width: int, kinds: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pool = torch.randint(0, 4, (kinds, width), generator=generator).to(torch.uint8)
    assert_agrees(pool[torch.randint(0, kinds, (n,), generator=generator)], "any")
