from __future__ import annotations

import pytest
import torch

from fastguide.reference import philox as reference
from tests.triton.device import DEVICE

triton = pytest.importorskip("triton")
tl = pytest.importorskip("triton.language")

from fastguide.triton.numerics import philox
from fastguide.triton.seeds import group_seeds

SEEDS = [0, 1, -1, 2**31, 2**32 - 1, 2**63 - 1, -(2**63), 0x0123456789ABCDEF]


@triton.jit
def _philox(seeds, slots, out, step, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    seed, slot = tl.load(seeds + i, mask=i < n), tl.load(slots + i, mask=i < n)
    w0, w1, w2, w3 = philox.philox(seed, i, slot, slot >> 32, philox.counter_word(step, philox.VALUE))
    tl.store(out + i, w0.to(tl.int64), mask=i < n)
    tl.store(out + n + i, w1.to(tl.int64), mask=i < n)
    tl.store(out + 2 * n + i, w2.to(tl.int64), mask=i < n)
    tl.store(out + 3 * n + i, w3.to(tl.int64), mask=i < n)


@triton.jit
def _words(a, b, low, high, out, n, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    inside = i < n
    tl.store(out + i, philox.mulhi64(tl.load(a + i, mask=inside), tl.load(b + i, mask=inside)), mask=inside)
    word = philox.word64(tl.load(low + i, mask=inside), tl.load(high + i, mask=inside))
    tl.store(out + n + i, word.to(tl.int64), mask=inside)


@pytest.mark.parametrize("step", [0, 1, 2**28 - 1, "tensor"])
def test_words_are_those_of_the_reference(step: int | str) -> None:
    seeds = torch.tensor(SEEDS * 9, device=DEVICE)
    slots = torch.arange(len(seeds), device=DEVICE) * 2**35 - 5
    given = torch.tensor([7], device=DEVICE) if step == "tensor" else step
    out = torch.empty(4, len(seeds), dtype=torch.int64, device=DEVICE)
    _philox[(1,)](seeds, slots, out, given, len(seeds), BLOCK=128)
    c3 = reference.counter_word(7 if step == "tensor" else step, reference.Stream.VALUE)  # type: ignore[arg-type]
    i = torch.arange(len(seeds), device=DEVICE)
    assert torch.equal(out, torch.stack(reference.philox(seeds, i, slots, slots >> 32, c3)))


def test_products_and_words_are_those_of_the_reference() -> None:
    a = torch.tensor(SEEDS * 4, device=DEVICE)
    b = torch.tensor([0, 1, 2**31 + 3, 2**62, 2**63 - 1, 12345, 2**40 + 1, 7], device=DEVICE).repeat_interleave(4)
    low, high = a & 0xFFFFFFFF, b & 0xFFFFFFFF
    out = torch.empty(2, len(a), dtype=torch.int64, device=DEVICE)
    _words[(1,)](a, b, low, high, out, len(a), BLOCK=32)
    assert torch.equal(out[0], reference.mulhi64(a, b))
    assert torch.equal(out[1], reference.word64(low, high))


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64 - 1])
def test_seeds_of_groups_are_those_of_the_reference(seed: int) -> None:
    signed = seed - 2**64 if seed >= 2**63 else seed
    for groups in (1, 5, 300):
        assert torch.equal(group_seeds(None, signed, groups, DEVICE), reference.expand_seed(seed, groups, DEVICE))
    given = torch.tensor([3, -4], device=DEVICE)
    assert torch.equal(group_seeds(given, 0, 2, DEVICE), given)
