from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastguide.reference import categorical as reference
from tests.triton.device import DEVICE

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from fastguide.triton._launch import EXACT
from fastguide.triton.numerics import tokens


@triton.jit
def _threshold(y, top_k, top_p, least, n, R: tl.constexpr, B: tl.constexpr):
    v = tl.arange(0, B)[None, :]
    row = tl.arange(0, R)
    tile = tl.load(y + row[:, None] * n + v, mask=v < n, other=float("-inf"))
    tl.store(least + row, tokens.block_threshold(tile, top_k, top_p))


@triton.jit
def _order(y, keys, back, n, B: tl.constexpr):
    i = tl.arange(0, B)
    key = tokens.ordered(tl.load(y + i, mask=i < n, other=0.0))
    tl.store(keys + i, key, mask=i < n)
    tl.store(back + i, tokens.value_of(key), mask=i < n)


def test_keys_are_in_the_order_of_the_values_and_lead_back_to_them() -> None:
    ends = [-math.inf, -3.4e38, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, 1e9, math.inf]
    y = torch.cat([torch.tensor(ends), torch.randn(500, generator=torch.Generator().manual_seed(0))]).to(DEVICE)
    keys, back = torch.empty(len(y), dtype=torch.int32, device=DEVICE), torch.empty_like(y)
    _order[(1,)](y, keys, back, len(y), B=512, **EXACT)
    assert torch.equal(back, y)
    assert torch.equal(keys[:, None] < keys, y[:, None] < y)


def rows(vocab: int) -> Tensor:
    """Return 16 rows: normal, with ties, far apart, with forbidden tokens, flat, one token alone."""
    y = torch.randn(16, vocab, generator=torch.Generator().manual_seed(vocab)) * 2
    y[3:6] = y[3:6].round()
    y[6:8] *= 1e4
    y[8:12][torch.rand(4, vocab, generator=torch.Generator().manual_seed(1)) < 0.5] = -math.inf
    y[12] = -7.5
    y[13, 1:] = -math.inf
    y[8:12, -1] = 0.25
    return y.to(DEVICE)


@pytest.mark.parametrize("top_k", [None, 1, 5, 60])
@pytest.mark.parametrize("top_p", [None, 1e-9, 0.3, 0.999999])
def test_thresholds_are_those_of_the_reference(top_k: int | None, top_p: float | None) -> None:
    for vocab in (5, 64, 301):
        y, least = rows(vocab), torch.empty(16, device=DEVICE)
        k = top_k if top_k is not None and top_k < vocab else 0
        share = 0 if top_p is None else reference.share_word(top_p)
        _threshold[(1,)](y, k, share, least, vocab, R=16, B=triton.next_power_of_2(vocab), **EXACT)
        expected = reference.threshold(y, top_k, top_p).squeeze(1)
        kept, wanted = y >= least[:, None], y >= expected[:, None]
        assert torch.equal(kept, wanted)
