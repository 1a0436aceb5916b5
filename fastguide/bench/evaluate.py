"""`evaluate`: compiled values of many states against the best batched torch forms known to us."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from fastguide import ops
from fastguide.bench.case import OURS, Bar, Case, Sizes, require
from fastguide.bench.peers import numba
from fastguide.bench.select import range_of
from fastguide.values.compiled import MLP, Potts

POTTS_PEERS = ("torch (one-hot GEMM)", "torch (gather)", "torch (embedding_bag)")
MLP_PEERS = ("torch (whole batch)", "torch (batches of 4,096)")
ROWS = 2048
"""Of a batch of the torch forms of the Potts model, whose temporaries then fit the caches."""


def cases(sizes: Sizes) -> Iterator[Case]:
    """Yield a Potts model of 76 positions and a small network."""
    for n in sizes.of([256], [2**10, 2**13, 2**17], range_of(8, 20), 76 * 8 + 2000):
        yield potts(n)
    for n in sizes.of([256], [2**10, 2**13, 2**17, 2**20], range_of(8, 22), 64 * 4 + 3 * 512):
        yield mlp(n)


def potts(n: int, length: int = 76, vocab: int = 20) -> Case:
    """Pairwise couplings between all positions."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randint(0, vocab, (n, length), generator=generator)
    fields = torch.randn(length, vocab, generator=generator)
    couplings = torch.randn(length, length, vocab, vocab, generator=generator) * 0.1
    upper = torch.ones(length, length).triu_(1)[:, :, None, None] * couplings
    matrix = upper.permute(0, 2, 1, 3).reshape(length * vocab, length * vocab).contiguous()
    first, second = torch.triu_indices(length, length, 1)
    table = couplings[first, second].reshape(-1, 1).contiguous()
    offsets = torch.arange(len(first)) * vocab * vocab
    flat, places = fields.reshape(-1), torch.arange(length) * vocab

    def in_batches(of: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.cat([of(part) for part in torch.split(states, ROWS)])

    def one_hot(x: Tensor) -> Tensor:
        hot = torch.zeros(len(x), length * vocab).scatter_(1, x + places, 1.0)
        return (hot @ matrix).mul_(hot).sum(1) + hot @ flat

    def gather(x: Tensor) -> Tensor:
        index = (x[:, first] * vocab).add_(x[:, second]).add_(offsets)
        return table[:, 0][index].sum(1) + flat[x + places].sum(1)

    def bag(x: Tensor) -> Tensor:
        index = (x[:, first] * vocab).add_(x[:, second]).add_(offsets)
        return torch.nn.functional.embedding_bag(index, table, mode="sum")[:, 0] + flat[x + places].sum(1)

    value: Any = Potts(fields, couplings)
    competitors: dict[str, Callable[[], Any]] = {OURS: lambda: ops.evaluate(value, states)}
    for name, form in zip(POTTS_PEERS, (one_hot, gather, bag), strict=True):
        competitors[name] = partial(in_batches, form)
    found, absent = numba.potts(states, fields, couplings)
    competitors |= found
    some = states[:100].double().long()
    pairs = couplings.double()[first, second, some[:, first], some[:, second]]
    expected = pairs.sum(1) + fields.double()[torch.arange(length), some].sum(1)

    def check(name: str, got: Any) -> None:
        _agree(torch.as_tensor(got), expected, n)

    size = {"length": length, "vocab": vocab}
    return Case("evaluate", "Potts, L 76, V 20", n, competitors, n * (8 * length + 4), check, size, absent)


def mlp(n: int, widths: tuple[int, ...] = (64, 128, 128, 1)) -> Case:
    """A network with ReLU between its layers."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, widths[0], generator=generator)
    weights = [torch.randn(b, a, generator=generator) / a**0.5 for a, b in pairwise(widths)]
    biases = [torch.randn(b, generator=generator) * 0.1 for b in widths[1:]]

    @torch.no_grad()
    def forward(h: Tensor) -> Tensor:
        for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
            h = torch.addmm(b, h, w.T)
            if i + 1 < len(weights):
                h.relu_()
        return h[:, 0]

    value: Any = MLP(weights, biases)
    competitors: dict[str, Callable[[], Any]] = {OURS: lambda: ops.evaluate(value, x)}
    competitors[MLP_PEERS[0]] = lambda: forward(x)
    competitors[MLP_PEERS[1]] = lambda: torch.cat([forward(part) for part in torch.split(x, 4096)])
    h = x[:100].double()
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        h = h @ w.double().T + b.double()
        h = h.relu() if i + 1 < len(weights) else h
    expected = h[:, 0]

    def check(name: str, got: Any) -> None:
        _agree(got, expected, n)

    return Case("evaluate", "MLP 64-128-128-1", n, competitors, n * (4 * widths[0] + 4), check)


def _agree(got: Tensor, expected: Tensor, n: int) -> None:
    require(got.shape == (n,), f"shape {list(got.shape)}")
    error = float((got[: len(expected)].double() - expected).abs().max())
    require(error < 1e-3, f"off by {error:.2g}")


def bars() -> Iterator[Bar]:
    """Yield the figures to reach."""
    yield Bar(
        "evaluate Potts, N = 2^17, L 76, V 20", lambda: potts(2**17), "best of three torch forms", POTTS_PEERS, 25
    )
    yield Bar("evaluate MLP 64-128-128-1, N = 2^17", lambda: mlp(2**17), "batched torch", MLP_PEERS, 3)
