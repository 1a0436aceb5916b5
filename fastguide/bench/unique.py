"""`unique`: equal rows named once, with the representative, inverse and count that the loop needs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from fastguide import ops
from fastguide.bench.case import OURS, Bar, Case, Sizes, require
from fastguide.bench.peers import numpy as numpy_peer
from fastguide.bench.select import range_of

NUMPY, DICTIONARY, TORCH = "numpy (void view)", "Python dict", "torch.unique(dim=0)"


def cases(sizes: Sizes) -> Iterator[Case]:
    """Yield rows of 76 tokens as bytes and as int64, a quarter of them distinct."""
    for n in sizes.of([2**10], [2**10, 2**13, 2**15, 2**17], range_of(10, 22), 76 * 8 * 4):
        for dtype in (torch.uint8, torch.int64):
            yield rows(n, dtype)


def rows(n: int, dtype: torch.dtype, length: int = 76) -> Case:
    """N rows drawn from N / 4 distinct ones."""
    generator = torch.Generator().manual_seed(0)
    pool = torch.randint(0, 20, (n // 4, length), generator=generator, dtype=dtype)
    x = pool[torch.randint(n // 4, (n,), generator=generator)]
    distinct = len(np.unique(x.numpy().view(f"V{length * x.element_size()}")))
    competitors: dict[str, Callable[[], Any]] = {
        OURS: lambda: ops.unique(x),
        NUMPY: numpy_peer.unique_rows(x),
        DICTIONARY: numpy_peer.dictionary(x),
        TORCH: lambda: torch.unique(x, dim=0, return_inverse=True, return_counts=True),
    }

    def check(name: str, got: Any) -> None:
        if name == TORCH:
            found, inverse, counts = got
        elif name == OURS:
            found, inverse, counts = x[got.representatives], got.inverse, got.counts
        else:
            found, inverse, counts = x[torch.from_numpy(got[1])], torch.from_numpy(got[2]).view(-1), got[3]
        require(len(counts) == distinct, f"{len(counts)} distinct rows and not {distinct}")
        require(torch.equal(found[inverse], x), "a row does not equal its representative")

    moved = n * (length * x.element_size() + 8)
    name = str(dtype).removeprefix("torch.")
    return Case("unique", f"76 tokens, {name}", n, competitors, moved, check, {"dtype": name, "distinct": distinct})


def bars() -> Iterator[Bar]:
    """Yield the figures to reach."""
    for dtype in (torch.uint8, torch.int64):
        what = f"unique, 2^17 x 76, {str(dtype).removeprefix('torch.')}"
        yield Bar(what, partial(rows, 2**17, dtype), "numpy void view", (NUMPY,), 8)
        yield Bar(what, partial(rows, 2**17, dtype), "torch.unique(dim=0)", (TORCH,), 60)
