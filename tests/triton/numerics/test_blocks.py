from __future__ import annotations

import pytest
import torch

from fastguide.reference.select import _largest_scale, _shift
from tests.triton.device import DEVICE

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from fastguide.triton.numerics import blocks


@triton.jit
def _scales(terms, gap, scales, totals, limit, LARGEST: tl.constexpr, WIDTH: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, WIDTH)
    term, g = tl.load(terms + row * WIDTH + i), tl.load(gap + row * WIDTH + i)
    total = tl.sum(blocks.rough(term, g), 0)
    first = blocks.first_scale(total, LARGEST)
    scale, exact, found = first, term.sum(0) * 0, first > LARGEST
    for i in tl.static_range(4):
        s = first - i
        t = tl.sum(blocks.guarded(term, g, total, s), 0)
        good = blocks.fits(t, total, s, limit) & (found == 0)
        scale, exact, found = tl.where(good, s, scale), tl.where(good, t, exact), found | good
    tl.store(scales + row, scale)
    tl.store(totals + row, exact)


@pytest.mark.parametrize("largest", [14, 0])
def test_scales_are_those_of_the_reference(largest: int) -> None:
    generator = torch.Generator().manual_seed(0)
    width, limit = 16, 2**62 - 16
    terms = torch.randint(2**47, 2**58, (60, width), generator=generator)
    gap = torch.randint(0, 90, (60, width), generator=generator)
    gap[:, 0] = 0
    terms[:20] = torch.randint(2**58, 2**61, (20, width), generator=generator)
    terms[20:30, 1:] = 0
    # Sums of 2^62, of one less and of the limit: where a rounded total misleads.
    terms[30:40], gap[30:40] = 2**58, 0
    terms[31, 0] -= 1
    terms[32, 0] -= 16
    terms[33, 0] -= 17
    terms[34] = 2**49 + 1
    terms[35] = 0
    scale, total = _largest_scale(terms, gap, range(largest, -21, -1), limit)
    scales, totals = torch.empty_like(scale, device=DEVICE), torch.empty_like(total, device=DEVICE)
    _scales[(60,)](terms.to(DEVICE), gap.to(DEVICE), scales, totals, limit, LARGEST=largest, WIDTH=width)
    assert torch.equal(totals.cpu(), total)
    assert torch.equal(scales.cpu()[total > 0], scale[total > 0])


@triton.jit
def _shifted(x, by, out, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, blocks.shift(tl.load(x + i, mask=i < n), tl.load(by + i, mask=i < n)), mask=i < n)


def test_shifts_are_those_of_the_reference() -> None:
    by = torch.arange(-100, 15, device=DEVICE)
    x = torch.full_like(by, 2**48 - 5)
    out = torch.empty_like(x)
    _shifted[(1,)](x, by, out, len(x), BLOCK=128)
    assert torch.equal(out, _shift(x, by))
