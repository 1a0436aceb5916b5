from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastguide.reference import exp as reference
from tests.triton.device import DEVICE

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from fastguide.triton._launch import EXACT
from fastguide.triton.numerics import exp


@triton.jit
def _weigh(x, e, maximum, weights, exponents, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    inside = i < n
    w = exp.scaled_weight(tl.load(x + i, mask=inside), tl.load(e + i, mask=inside))
    tl.store(weights + i, w, mask=inside)
    tl.store(exponents + i, exp.block_exponent(tl.load(maximum + i, mask=inside)), mask=inside)


def log_weights(dtype: torch.dtype) -> Tensor:
    """Return values near integers and halves in base 2, of every size, and the ends of the range."""
    generator = torch.Generator().manual_seed(0)
    halves = torch.arange(-400, 400, dtype=torch.float64) / 2 * math.log(2)
    spread = torch.randn(1500, generator=generator, dtype=torch.float64) * torch.logspace(-12, 9, 1500).double()
    ends = torch.tensor([0.0, -0.0, -math.inf, -1e9, -1.1e9, 1e9, 2e-308, 5e-324], dtype=torch.float64)
    return torch.cat([halves, halves.float().double(), spread.clamp(-1e9, 1e9), ends]).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_and_exponents_are_those_of_the_reference(dtype: torch.dtype) -> None:
    x = log_weights(dtype).to(DEVICE)
    finite = torch.where(x > -math.inf, x, 0)
    own = reference.block_exponent(finite)
    for above in (0, 1, 3, 30, 70):
        weights, exponents = torch.empty_like(own), torch.empty_like(own)
        _weigh[(1,)](x, own + above, finite, weights, exponents, len(x), BLOCK=4096, **EXACT)
        assert torch.equal(exponents, own)
        assert torch.equal(weights, reference.scaled_weight(x, own + above))
