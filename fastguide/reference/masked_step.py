"""``masked_step`` in plain torch: which positions change, and an exact draw where one is revealed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fastguide.reference.categorical import (
    DEGENERATE,
    INVALID_VALUE,
    OK,
    OUT_OF_RANGE,
    TOKEN_BLOCK,
    draw_tokens,
    largest_share,
    largest_tokens,
    row_codes,
    scale_logits,
    threshold,
)
from fastguide.reference.exp import MAX_LOG_WEIGHT
from fastguide.reference.philox import Stream, counter_word, philox, word64

__all__ = [
    "DEGENERATE", "INVALID_VALUE", "OK", "OUT_OF_RANGE", "TOKEN_BLOCK", "draw_tokens", "largest_tokens", "masked_step",
    "reveal_threshold", "row_codes", "scale_logits", "threshold",
]  # fmt: skip
_ROWS_AT_ONCE = 64


def reveal_threshold(probability: float) -> int:
    """Return the number below which a 32-bit word reveals: 0 never does, 1 always, and no positive value never."""
    return math.ceil(probability * 2**32)


def _position_words(seeds: Tensor, slots: Tensor, length: int, step: int) -> Tensor:
    """Return the 32-bit words ``[P, M, L]`` of the positions of children in ``slots`` ``[P, M]``, with seeds ``[P]``."""
    blocks = torch.arange(-(-length // 4), device=seeds.device)
    words = philox(seeds[:, None, None], 0, slots[..., None], blocks, counter_word(step, Stream.POSITIONS))
    return torch.stack(words, -1).flatten(2)[..., :length]


def _first_of(order: Tensor, masked: Tensor, counts: Tensor) -> Tensor:
    """Return bool ``[..., L]``: the ``counts`` masked positions of smallest ``order``, the lowest position on ties."""
    places = torch.argsort(torch.where(masked, order, order.amax() + 1), dim=-1, stable=True)
    ranks = torch.empty_like(places).scatter_(
        -1, places, torch.arange(order.shape[-1], device=order.device).expand_as(places)
    )
    return masked & (ranks < counts[..., None])


def _first(bad: Tensor) -> int | None:
    return int(bad.flatten().nonzero()[0]) if bool(bad.any()) else None


def masked_step(
    tokens: Tensor,
    logits: Tensor,
    *,
    reveal_probability: float | None,
    counts: Tensor | None = None,
    confidence: bool = False,
    remask_probability: float = 0.0,
    frozen: Tensor | None = None,
    inverse_temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
    bias: Tensor | None,
    shift: Tensor | None = None,
    ancestors: Tensor | None,
    branch: int,
    seeds: Tensor,
    step: int,
    slots: Tensor | None,
    lengths: Tensor | None,
    stream: Stream = Stream.TOKENS,
) -> tuple[Tensor, int, int]:
    """Return the children ``[P, M, L]``, a status code and the first offending index, as the kernel does.

    Arguments as in :func:`fastguide.ops.masked_step.masked_step`, with ``seeds`` ``[G]``, the temperature inverted (0: the
    lowest index of the largest logit) and the numbers to reveal ``counts`` ``[G]`` where ``reveal_probability`` is None.
    """
    states, length = tokens.shape
    vocab, device = logits.shape[-1], tokens.device
    ancestors = torch.arange(states, device=device) if ancestors is None else ancestors.long()
    particles, per_group = len(ancestors), len(ancestors) // len(seeds)
    if slots is None:
        slots = torch.arange(per_group, device=device).repeat(len(seeds))
    children = tokens.new_empty((particles, branch, length))
    if (bad := _first((ancestors < 0) | (ancestors >= states))) is not None:
        return children, OUT_OF_RANGE, bad
    if (bad := _first((slots < 0) | (slots > (2**32 - branch) // branch))) is not None:
        return children, OUT_OF_RANGE, particles + bad

    position = torch.arange(length, device=device)
    parents = tokens[ancestors]
    used = torch.ones_like(parents, dtype=torch.bool)
    if lengths is not None:
        used = position < lengths.repeat_interleave(per_group)[:, None]
    if bool((strange := used & ((parents < 0) | (parents > vocab))).any()):
        p, at = strange.nonzero(as_tuple=True)
        return children, OUT_OF_RANGE, 2 * particles + int((ancestors[p] * length + at).amin())

    def rows(p: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the logits of particles ``p`` at positions ``at`` become, and their codes."""
        row_bias = None if bias is None else bias[at] if bias.dim() == 2 else bias
        y = scale_logits(logits[ancestors[p], at], row_bias, inverse_temperature or 1.0)
        codes = row_codes(y)
        fine = codes == OK
        least = threshold(y[fine], top_k, top_p).clamp(min=-MAX_LOG_WEIGHT)
        y[fine] = torch.where(y[fine] >= least, y[fine], -math.inf)
        return y, codes

    masked = used & (parents == vocab)
    seeds = seeds.repeat_interleave(per_group)
    child_slots = slots.long()[:, None] * branch + torch.arange(branch, device=device)
    children = parents[:, None].expand(-1, branch, -1).clone()
    words = _position_words(seeds, child_slots, length, step)
    opened = masked[:, None].expand_as(words)
    if counts is None:
        assert reveal_probability is not None
        revealed = opened & (words < reveal_threshold(reveal_probability))
    else:
        wanted = counts.repeat_interleave(per_group)
        if confidence:
            order = torch.zeros(particles, length, dtype=torch.float64, device=device)
            undecided = (wanted > 0) & (wanted < masked.sum(-1))
            p, at = (masked & undecided[:, None]).nonzero(as_tuple=True)
            for start in range(0, len(p), _ROWS_AT_ONCE):
                some = slice(start, start + _ROWS_AT_ONCE)
                y, codes = rows(p[some], at[some])
                if (bad := _first(codes != OK)) is not None:
                    return children, int(codes[bad]), int((p[some] * branch * length + at[some])[bad])
                order[p[some], at[some]] = -largest_share(y)
            words_or_order = order[:, None].expand(-1, branch, -1)
        else:
            words_or_order = words
        revealed = _first_of(words_or_order, opened, wanted[:, None].expand(-1, branch))
    loose = used & (parents != vocab)
    if frozen is not None:
        loose = loose & ~(frozen if frozen.dim() == 1 else frozen[ancestors])
    children[loose[:, None] & (words < reveal_threshold(remask_probability))] = vocab

    p, m, at = revealed.nonzero(as_tuple=True)
    low, high, _, _ = philox(seeds[p], 0, child_slots[p, m], at, counter_word(step, stream))
    draws = word64(low, high)
    for start in range(0, len(p), _ROWS_AT_ONCE):
        some = slice(start, start + _ROWS_AT_ONCE)
        i, k = p[some], at[some]
        y, codes = rows(i, k)
        if shift is not None:
            y = torch.where(y > -math.inf, y + shift[ancestors[i], k], y)
            codes = torch.where(codes == OK, row_codes(y), codes)
        if (bad := _first(codes != OK)) is not None:
            return children, int(codes[bad]), int(((i * branch + m[some]) * length + k)[bad])
        drawn = draw_tokens(y, draws[some]) if inverse_temperature else largest_tokens(y)
        children[i, m[some], k] = drawn.to(children.dtype)
    return children, OK, -1
