from __future__ import annotations

import itertools

import pytest
import torch

from fastguide.reference import normal as reference
from tests.triton.device import DEVICE

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from fastguide.triton._launch import EXACT
from fastguide.triton.numerics import normal


@triton.jit
def _pairs(a, b, first, second, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    inside = i < n
    word_a = tl.load(a + i, mask=inside).to(tl.uint32)
    word_b = tl.load(b + i, mask=inside).to(tl.uint32)
    z0, z1 = normal.normal_pair(word_a, word_b)
    tl.store(first + i, z0, mask=inside)
    tl.store(second + i, z1, mask=inside)


def test_normals_are_those_of_the_reference() -> None:
    ends = [0, 1, 255, 256, 2**30, 2**31 - 1, 2**31, 2**32 - 256, 2**32 - 1]
    corners = torch.tensor(list(itertools.product(ends, ends)))
    words = torch.randint(0, 2**32, (16_000, 2), generator=torch.Generator().manual_seed(1))
    a, b = torch.cat([corners, words]).to(DEVICE).unbind(1)
    a, b = a.contiguous(), b.contiguous()
    got = torch.empty(2, len(a), device=DEVICE)
    _pairs[(1,)](a, b, got[0], got[1], len(a), BLOCK=16_384, **EXACT)
    expected = torch.stack(reference.normal_pair(a, b))
    assert torch.equal(got.view(torch.int32), expected.view(torch.int32))
