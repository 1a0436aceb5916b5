"""Standard normals by Box and Muller, the mirror of ``csrc/core/normal.h``: the same IEEE operations, hence the same bits.

A normal is drawn from words of Philox, in pairs: 39 bits for the radius, 24 for the angle. The largest is 7.447 in
magnitude, which a normal exceeds with probability 1e-13.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastguide.reference.philox import Stream, counter_word, philox

RADIUS_BITS = 39
_SQRT_HALF_BITS = 0x3F3504F3
_TWO_LN2 = float.fromhex("0x1.62e430p+0")
_LOG = [
    "-0x1.6602ccp-3", "0x1.2510d6p-2", "-0x1.317ed0p-2", "0x1.535ab0p-2", "-0x1.98d332p-2", "0x1.0004aep-1",
    "-0x1.5556f2p-1", "0x1.fffffap-1", "-0x1p1",
]  # fmt: skip
_SINE = ["-0x1.32f65ap-8", "0x1.467fdcp-4", "-0x1.4abc22p-1", "0x1.921fb6p+0"]
_COSINE = ["-0x1.4e7cccp-6", "0x1.03b064p-2", "-0x1.3bd39cp+0", "0x1p0"]


def _polynomial(coefficients: list[str], x: Tensor) -> Tensor:
    first, *rest = (float.fromhex(c) for c in coefficients)
    p = torch.full_like(x, first)
    for c in rest:
        p = p * x + c
    return p


def _float_of(bits: Tensor) -> Tensor:
    return bits.to(torch.int32).view(torch.float32)


def normal_pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two float32 normals that two 32-bit words, as int64 in ``[0, 2^32)``, make."""
    n = (a >> 1).to(torch.float32) * 256.0 + ((b & 0xFF).to(torch.float32) + 0.5)
    bits = n.view(torch.int32).to(torch.int64)
    k = (bits - _SQRT_HALF_BITS) >> 23
    f = _float_of(bits - (k << 23)) - 1.0
    squared = (RADIUS_BITS - k).to(torch.float32) * _TWO_LN2 + _polynomial(_LOG, f) * f
    r = squared.double().sqrt().float()  # correctly rounded, which torch's float32 square root is not everywhere
    w = (((b >> 8) & 0x3FFFFF).to(torch.float32) + 0.5) * 2.0**-22 - 0.5
    square = w * w
    sine, cosine = _polynomial(_SINE, square) * w, _polynomial(_COSINE, square)
    cosine = torch.where(b >> 31 == 1, -cosine, cosine)
    swapped = (b >> 30) & 1 == 1
    return r * torch.where(swapped, sine, cosine), r * torch.where(swapped, cosine, sine)


def normals(seeds: Tensor, slots: Tensor, size: int, step: int) -> Tensor:
    """Return float32 normals ``[..., size]`` for seeds and slots, int64 ``[...]``.

    Elements ``4c .. 4c + 3`` come from the counter with position block ``c``: two pairs, from its words 0, 1 and 2, 3.
    """
    blocks = torch.arange(-(-size // 4), device=seeds.device)
    words = philox(seeds[..., None], 0, slots[..., None], blocks, counter_word(step, Stream.NOISE))
    pairs = (*normal_pair(words[0], words[1]), *normal_pair(words[2], words[3]))
    return torch.stack(pairs, -1).flatten(-2)[..., :size]
