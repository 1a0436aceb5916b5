from __future__ import annotations

import pytest
import torch

from fastguide.reference import log as reference
from tests.triton.device import DEVICE

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from fastguide.triton._launch import EXACT
from fastguide.triton.numerics import log


@triton.jit
def _log(x, out, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, log.log_fixed(tl.load(x + i, mask=i < n, other=1.0)), mask=i < n)


def test_logarithms_are_those_of_the_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    wide = torch.rand(3000, generator=generator, dtype=torch.float64) * torch.logspace(-300, 300, 3000).double()
    near_one = 1 + torch.arange(-500, 500, dtype=torch.float64) * 2.0**-53
    x = torch.cat([wide, near_one, 2.0 ** torch.arange(-90, 90, dtype=torch.float64)]).to(DEVICE)
    out = torch.empty_like(x)
    _log[(1,)](x, out, len(x), BLOCK=8192, **EXACT)
    assert torch.equal(out, reference.log(x))
