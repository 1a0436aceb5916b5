"""`select`: from log-weights to ancestors, log-mean-weight and effective sample size.

Every competitor starts from the same log-weights and gives ancestors; those that leave out the other two say so. Peers run in
the dtype of ours. A result passes where the mean log-weight of the ancestors is that of the tilted law, within what the rule
allows and float32 prefix sums lose.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastguide import ops
from fastguide.bench.case import OURS, Bar, Case, Sizes, require
from fastguide.bench.peers import blackjax, numba, particles
from fastguide.bench.peers import numpy as numpy_peer
from fastguide.bench.peers import torch as torch_peer

INTO = f"{OURS}, out="
PARTICLES = particles.NAMES
SEARCH, SEARCH_OUT, COUNTS = "torch (searchsorted)", "torch (searchsorted, out=)", "torch (repeat_interleave, out=)"
TORCH = (SEARCH, SEARCH_OUT, COUNTS)
COPY = "copy_ of the log-weights"


def cases(sizes: Sizes) -> Iterator[Case]:
    """Yield systematic and multinomial selection from one group, and one draw from each of many small groups."""
    for n in sizes.of([2**6, 2**10, 2**14], [2**6, 2**8, *(2**k for k in range(10, 25, 2))], range_of(6, 26), 64):
        yield one_group("systematic", n)
    for n in sizes.of([2**10], [2**10, 2**16, 2**20, 2**22], [2**10, 2**16, 2**20, 2**22, 2**24], 64):
        yield one_group("systematic", n, torch.float64)
        yield one_group("multinomial", n)
    for n in sizes.of([2**6], [2**10, 2**13, 2**16], range_of(6, 20), 8 * 64):
        yield many_groups(n)


def range_of(first: int, last: int) -> list[int]:
    """Return the powers of two between, both ends included."""
    return [2**k for k in range(first, last + 1)]


def one_group(rule: str, n: int, dtype: torch.dtype = torch.float32) -> Case:
    """N draws from N standard normal log-weights."""
    x = torch.randn(n, generator=torch.Generator().manual_seed(0), dtype=dtype)
    kept = ops.select(x, rule=rule)
    competitors: dict[str, Callable[[], Any]] = {
        OURS: lambda: ops.select(x, rule=rule),
        INTO: lambda: ops.select(x, rule=rule, out=kept),
    }
    absent: dict[str, str] = {}
    if rule == "systematic":
        competitors[SEARCH] = lambda: torch_peer.systematic(x)
        competitors[SEARCH_OUT] = torch_peer.Systematic(x, search=True)
        competitors[COUNTS] = torch_peer.Systematic(x, search=False)
        competitors["numpy"] = numpy_peer.systematic(x)
        found, missing = numba.systematic(x)
        competitors |= found
        absent |= missing
    else:
        if n <= 2**24:
            competitors["torch.multinomial"] = lambda: torch_peer.multinomial(x)
        else:
            absent["torch.multinomial"] = "takes 2^24 categories at most"
        competitors["torch (sorted uniforms)"] = lambda: torch_peer.sorted_multinomial(x)
    for peer in (particles, blackjax):
        found, missing = peer.resampling(rule, x)
        competitors |= found
        absent |= missing
    # The copy of as many bytes is the yardstick of the machine, and no competitor of one core's caches.
    target = torch.empty_like(x)
    competitors[COPY] = lambda: target.copy_(x)
    name = str(dtype).removeprefix("torch.")
    moved = n * (x.element_size() + 4)
    job = rule if dtype == torch.float32 else f"{rule}, {name}"
    return Case("select", job, n, competitors, moved, _near(x), {"dtype": name}, absent)


def many_groups(groups: int, m: int = 8) -> Case:
    """One draw from each of ``groups`` rows of 8 log-weights, the selection of SVDD."""
    x = torch.randn(groups, m, generator=torch.Generator().manual_seed(0))
    kept = ops.select(x, 1, rule="multinomial")
    competitors: dict[str, Callable[[], Any]] = {
        OURS: lambda: ops.select(x, 1, rule="multinomial"),
        INTO: lambda: ops.select(x, 1, rule="multinomial", out=kept),
        "torch.multinomial, batched": lambda: torch_peer.batched_multinomial(x),
        "torch (Gumbel argmax)": lambda: torch_peer.gumbel_argmax(x),
        "torch (exponential race)": lambda: torch_peer.exponential_race(x),
        "torch (inverse CDF)": lambda: torch_peer.inverse_cdf(x),
    }
    expected = float((torch.softmax(x.double(), -1) * x).sum(-1).mean())

    def check(name: str, got: Any) -> None:
        ancestors = _ancestors(got)
        require(ancestors.shape == (groups, 1), f"shape {list(ancestors.shape)}")
        require(bool(((ancestors >= 0) & (ancestors < m)).all()), "an ancestor is out of range")
        mean = float(x.gather(1, ancestors.long()).double().mean())
        # The standard deviation of one draw is below 1; 6 sigma.
        require(abs(mean - expected) < 6 / groups**0.5, f"mean log-weight {mean:.4f} and not {expected:.4f}")

    moved = groups * (4 * m + 4)
    return Case("select", "one of 8, many groups", groups, competitors, moved, check, {"m": m, "k": 1})


def _ancestors(got: Any) -> Tensor:
    first = got[0] if isinstance(got, tuple) else got
    return torch.from_numpy(np.array(first))


def _near(x: Tensor) -> Callable[[str, Any], None]:
    weights = torch.softmax(x.double(), 0)
    expected = float((weights * x).sum())

    def check(name: str, got: Any) -> None:
        if name == COPY:
            return
        ancestors = _ancestors(got)
        require(ancestors.shape == x.shape, f"shape {list(ancestors.shape)}")
        require(int(ancestors.min()) >= 0 and int(ancestors.max()) < len(x), "an ancestor is out of range")
        mean = float(x.double()[ancestors.long()].mean())
        # 6 sigma of independent draws, and what a float32 prefix sum of 2^26 weights may lose.
        allowed = 6 / math.sqrt(len(x)) + 0.02
        require(abs(mean - expected) < allowed, f"mean log-weight {mean:.4f} and not {expected:.4f}")

    return check


def bars() -> Iterator[Bar]:
    """Yield the figures to reach."""
    ours = (OURS, INTO)
    for k in (20, 23):
        what = f"select systematic, N = 2^{k}"
        yield Bar(what, partial(one_group, "systematic", 2**k), "particles", PARTICLES, 14, ours)
        composition = "torch composition (softmax, cumsum, searchsorted)"
        yield Bar(what, partial(one_group, "systematic", 2**k), composition, TORCH[:2], 24, ours)
        yield Bar(what, partial(one_group, "systematic", 2**k), "best torch composition", TORCH, 24, ours)
    what = "select multinomial, N = 2^20"
    yield Bar(what, lambda: one_group("multinomial", 2**20), "torch.multinomial", ("torch.multinomial",), 20, ours)
    yield Bar(what, lambda: one_group("multinomial", 2**20), "particles", PARTICLES, 5, ours)
    what = "select systematic, N = 2^10, whole Python call"
    yield Bar(what, lambda: one_group("systematic", 2**10), "particles", PARTICLES, 4, ours)
    what = "select, G = 65,536, M = 8, K = 1"
    batched, race = ("torch.multinomial, batched",), ("torch (Gumbel argmax)", "torch (exponential race)")
    yield Bar(what, lambda: many_groups(2**16), "torch.multinomial, batched", batched, 10, ours)
    yield Bar(what, lambda: many_groups(2**16), "torch Gumbel-argmax", race, 5, ours)
    what = "select, N = 2^23, out="
    yield Bar(what, lambda: one_group("systematic", 2**23), "warm copy_", (COPY,), 4.5, (INTO,), at_most=True)
