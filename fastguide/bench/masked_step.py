"""`masked_step`: gather the parents, reveal positions, draw their tokens.

- *tutorial*: the way of the tutorial's code: probabilities of every position, a categorical draw at every position, then a
  mask that keeps the draws of the revealed ones. By Gumbel noise, as there, and by ``torch.multinomial``.
- *sparse*: the best torch forms known to us: only rows at revealed positions are gathered, normalised and drawn.

The torch forms draw float32 uniforms, which cannot reach tokens below about 1e-7; ours draws from 64 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastguide import ops
from fastguide.bench.case import OURS, Bar, Case, Sizes, require
from fastguide.bench.peers import torch as torch_peer

INTO = f"{OURS}, out="
DRAWS = {
    "Gumbel": torch_peer.draw_gumbel,
    "exponential race": torch_peer.draw_race,
    "multinomial": torch_peer.draw_multinomial,
    "inverse CDF": torch_peer.draw_inverse_cdf,
}
SPARSE = (*(f"torch (sparse, {name})" for name in DRAWS), "torch (sparse, inverse CDF, one buffer)")
TUTORIAL = ("tutorial (Gumbel)", "tutorial (multinomial)")
PROTEIN = (64, 22, 0.5, 0.05)
TEXT = (256, 50_258, 1.0, 0.02)
BRANCHED = "branch 8"


def cases(sizes: Sizes) -> Iterator[Case]:
    """Yield protein-like states of every size, and 64 text-like ones."""
    length, vocab = PROTEIN[:2]
    for n in sizes.of([64], [64, 256, 1024, 4096, 16384], [2**k for k in range(6, 18)], length * vocab * 4 * 6):
        yield proposing(n, *PROTEIN)
        yield branching(n, *PROTEIN)
    if sizes.effort != "quick" and sizes.given is None:
        yield proposing(64, *TEXT)
        yield branching(64, *TEXT)


def _states(n: int, length: int, vocab: int, masked: float) -> tuple[Tensor, Tensor, torch.Generator]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, vocab, (n, length), generator=generator)
    tokens[torch.rand(n, length, generator=generator) < masked] = vocab
    return tokens, torch.randn(n, length, vocab, generator=generator), generator


def proposing(n: int, length: int, vocab: int, masked: float, probability: float) -> Case:
    """A child of each particle, gathered from a random ancestor."""
    tokens, logits, generator = _states(n, length, vocab, masked)
    ancestors = torch.randint(0, n, (n,), generator=generator).sort().values
    given = (tokens, logits, ancestors, probability)
    settings: Any = {"ancestors": ancestors, "reveal_probability": probability}
    out = tokens.new_empty(n, 1, length)
    competitors: dict[str, Callable[[], Any]] = {
        OURS: lambda: ops.masked_step(tokens, logits, **settings)[:, 0],
        INTO: lambda: ops.masked_step(tokens, logits, **settings, out=out)[:, 0],
    }
    for name, draw in DRAWS.items():
        competitors[f"torch (sparse, {name})"] = partial(torch_peer.sparse, *given, draw)
    competitors[SPARSE[-1]] = torch_peer.Sparse(*given)
    competitors[TUTORIAL[0]] = lambda: torch_peer.everywhere(*given, torch_peer.tutorial_gumbel)
    if vocab < 1000:  # beyond, the slower of the two by far, and half a minute a call
        competitors[TUTORIAL[1]] = lambda: torch_peer.everywhere(*given, torch_peer.tutorial_multinomial)
    parents = tokens[ancestors]
    free = int((parents == vocab).sum())

    def check(name: str, got: Any) -> None:
        require(got.shape == parents.shape, f"shape {list(got.shape)}")
        require(bool(((got == parents) | (parents == vocab)).all()), "a token that was there has changed")
        drawn = (got != parents).nonzero(as_tuple=True)
        revealed = len(drawn[0])
        spread = (free * probability * (1 - probability)) ** 0.5
        expected = free * probability
        require(abs(revealed - expected) < 6 * spread + 1, f"{revealed} revealed and not about {expected:.0f}")
        if revealed < 50:
            return
        # The mean log-probability of drawn tokens is minus the entropy of their rows.
        log_p = torch.log_softmax(logits[ancestors[drawn[0]], drawn[1]].double(), -1)
        mean, entropy = log_p.gather(1, got[drawn][:, None]).mean(), (log_p.exp() * log_p).sum(-1).mean()
        bound = 6 * 1.5 / revealed**0.5
        require(abs(float(mean - entropy)) < bound, f"mean log-probability {mean:.3f} and not {entropy:.3f}")

    # Tokens read and written, a row of logits read where a token is drawn.
    moved = 2 * 8 * n * length + int(free * probability * vocab * 4)
    size = {"length": length, "vocab": vocab, "masked": masked, "reveal": probability}
    return Case("masked_step", f"L {length}, V {vocab}", n, competitors, moved, check, size)


def branching(n: int, length: int, vocab: int, masked: float, probability: float) -> Case:
    """One child and eight of each particle; the rows drawn from are the same, since every masked position is revealed."""
    tokens, logits, generator = _states(n, length, vocab, masked)
    tokens[torch.rand(n, length, generator=generator) >= probability] = 0
    rows = int((tokens == vocab).sum())

    def check(name: str, got: Any) -> None:
        require(got.shape == (n, 8 if name == BRANCHED else 1, length), f"shape {list(got.shape)}")
        require(bool((got < vocab).all()), "a position is still masked")

    competitors: dict[str, Callable[[], Any]] = {
        OURS: lambda: ops.masked_step(tokens, logits, reveal_probability=1.0),
        BRANCHED: lambda: ops.masked_step(tokens, logits, reveal_probability=1.0, branch=8),
    }
    size = {"length": length, "vocab": vocab, "masked_rows": rows}
    moved = 2 * 8 * n * length + rows * vocab * 4
    return Case("masked_step", f"L {length}, V {vocab}, children", n, competitors, moved, check, size)


def bars() -> Iterator[Bar]:
    """Yield the figures to reach."""
    ours = (OURS, INTO)
    what = "masked_step, N 1024, L 64, V 22"
    yield Bar(what, lambda: proposing(1024, *PROTEIN), "tutorial's way", TUTORIAL, 300, ours)
    yield Bar(what, lambda: proposing(1024, *PROTEIN), "best sparse torch", SPARSE, 10, ours)
    what = "masked_step, N 64, L 256, V 50,258, 2 % revealed"
    yield Bar(what, lambda: proposing(64, *TEXT), "tutorial's way", TUTORIAL[:1], 2000, ours)
    # The bar was set against noise on every logit of a row; one uniform a row is a form found since.
    yield Bar(what, lambda: proposing(64, *TEXT), "sparse torch, Gumbel noise", SPARSE[:1], 50, ours)
    yield Bar(what, lambda: proposing(64, *TEXT), "best sparse torch", SPARSE, 50, ours)
    what = "the same, branch 8 against branch 1"
    yield Bar(what, lambda: branching(64, *TEXT), "our own branch 1", (OURS,), 1.4, (BRANCHED,), at_most=True)
