"""Philox4x32-10 in torch int64 arithmetic, the mirror of ``csrc/core/philox.h``."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor

_LOW = 0xFFFFFFFF


class Stream(IntEnum):
    """What a draw is for; the low four bits of the counter's last word."""

    PRIOR = 0
    POSITIONS = 1
    TOKENS = 2
    NOISE = 3
    SELECT = 4
    VALUE = 5
    ACCEPT = 6
    USER = 7


def _as_int64(value: Tensor | int, device: torch.device) -> Tensor:
    if isinstance(value, Tensor):
        return value.to(torch.int64)
    # Filled in on the device: a number that is copied there makes the host wait.
    return torch.full((), value, dtype=torch.int64, device=device)


def philox(
    key: Tensor, c0: Tensor | int, c1: Tensor | int, c2: Tensor | int, c3: Tensor | int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the four 32-bit words, as int64 in ``[0, 2^32)``, of keys and counters broadcast together.

    Args:
        key: int64 seeds, read as 64 unsigned bits.
        c0: word block. c1: slot. c2: position block. c3: ``step * 16 + stream``.
    """
    c0, c1, c2, c3 = (_as_int64(c, key.device) & _LOW for c in (c0, c1, c2, c3))
    k0, k1 = key & _LOW, (key >> 32) & _LOW
    for _ in range(10):
        # A product of two 32-bit words fills 64 unsigned bits: it wraps in int64, and masks read the halves back.
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (((p1 >> 32) & _LOW) ^ c1 ^ k0), p1 & _LOW, (((p0 >> 32) & _LOW) ^ c3 ^ k1), p0 & _LOW
        k0, k1 = (k0 + 0x9E3779B9) & _LOW, (k1 + 0xBB67AE85) & _LOW
    return c0, c1, c2, c3


def word64(low: Tensor, high: Tensor) -> Tensor:
    """Return the 64-bit word ``high << 32 | low`` as int64 (two's complement)."""
    return (high << 32) | low


def mulhi64(a: Tensor, b: Tensor) -> Tensor:
    """Return ``floor(a * b / 2^64)`` with ``a`` read as 64 unsigned bits and ``0 <= b < 2^63``."""
    a0, a1 = a & _LOW, (a >> 32) & _LOW
    b0, b1 = b & _LOW, (b >> 32) & _LOW
    low = a0 * b0
    middle = a1 * b0 + ((low >> 32) & _LOW)
    # a1 * b0 can reach 2^64: read it unsigned.
    carry = a0 * b1 + (middle & _LOW)
    return a1 * b1 + ((middle >> 32) & _LOW) + ((carry >> 32) & _LOW)


def counter_word(step: int | Tensor, stream: Stream) -> int | Tensor:
    """Return the last word of the counter."""
    return step * 16 + int(stream)


def expand_seed(seed: int | Tensor, groups: int, device: torch.device | str = "cpu") -> Tensor:
    """Return ``[groups]`` int64 seeds in ``[0, 2^63)`` derived from one integer; group ``g`` depends on ``(seed, g)`` only.

    A tensor holds the integer's 64 bits, and stays where it is.
    """
    if isinstance(seed, Tensor):
        key = seed.reshape(1)
    else:
        key = torch.tensor([seed - 2**64 if seed >= 2**63 else seed], dtype=torch.int64, device=device)
    g = torch.arange(groups, dtype=torch.int64, device=device)
    w0, w1, _, _ = philox(key, g & _LOW, g >> 32, 0, _LOW)
    return (word64(w0, w1) >> 1) & (2**63 - 1)
