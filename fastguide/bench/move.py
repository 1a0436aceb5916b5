"""`move`: states follow their ancestors, half of the particles being dead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from fastguide import ops
from fastguide.bench.case import OURS, Bar, Case, Sizes, require
from fastguide.bench.peers import torch as torch_peer
from fastguide.bench.select import range_of

COPIED = f"{OURS}, out of place"
INTO, ALLOCATING, DEAD = "torch index_select, out=", "torch index_select", "torch index_copy_ of the dead"
FLOATS = 256
"""Of a particle: 1 KiB."""


def cases(sizes: Sizes) -> Iterator[Case]:
    """Yield a move of one tensor of 1 KiB a particle."""
    for n in sizes.of([2**8], [2**8, 2**11, 2**14, 2**17, 2**19], range_of(8, 22), 4 * 4 * FLOATS):
        yield half_dead(n)


def half_dead(n: int) -> Case:
    """A random half keeps its slots, and its members replace the others."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(n, generator=generator)
    dead, alive = order[: n // 2].sort().values, order[n // 2 :].sort().values
    parents = alive[torch.randint(len(alive), (len(dead),), generator=generator).sort().values]
    ancestors = torch.arange(n, dtype=torch.int32)
    ancestors[dead] = parents.int()
    source = torch.randn(n, FLOATS, generator=generator)
    wide, out = ancestors.long(), torch.empty_like(source)
    mine, theirs = source.clone(), source.clone()
    competitors: dict[str, Callable[[], Any]] = {
        OURS: lambda: ops.move(mine, ancestors, inplace=True),
        COPIED: lambda: ops.move(source, ancestors),
        INTO: lambda: torch.index_select(source, 0, ancestors, out=out),
        ALLOCATING: lambda: source.index_select(0, ancestors),
        "torch indexing": lambda: source[wide],
        DEAD: lambda: torch_peer.move_dead(theirs, dead, parents),
    }

    def check(name: str, got: Any) -> None:
        some = torch.arange(0, n, max(1, n // 1000))
        require(got.shape == source.shape, f"shape {list(got.shape)}")
        require(torch.equal(got[some], source[wide[some]]), "a row is not its ancestor's")

    # In place a dead row is written and its parent read.
    moved = 2 * len(dead) * 4 * FLOATS + 4 * n
    return Case("move", "half dead, 1 KiB", n, competitors, moved, check, {"bytes_a_particle": 4 * FLOATS})


def bars() -> Iterator[Bar]:
    """Yield the figures to reach."""
    what = "move in place, half dead, 1 KiB, N = 2^17"
    yield Bar(what, lambda: half_dead(2**17), "torch index_select, out=", (INTO,), 2.3)
    yield Bar(what, lambda: half_dead(2**17), "torch index_select, allocating", (ALLOCATING, "torch indexing"), 7)
