"""``masked_step`` in plain torch: which positions are revealed, and an exact inverse CDF over integer weights.

The rule of the draws is the one that ``csrc/core/categorical.h`` states, with the bound that keeps it in 63 bits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fastguide.reference.exp import MAX_LOG_WEIGHT, block_exponent, scaled_weight
from fastguide.reference.philox import Stream, counter_word, mulhi64, philox, word64

TOKEN_BLOCK = 512
OK, INVALID_VALUE, DEGENERATE, OUT_OF_RANGE = range(4)
_ROWS_AT_ONCE = 64


def reveal_threshold(probability: float) -> int:
    """Return the number below which a 32-bit word reveals: 0 never does, 1 always, and no positive value never."""
    return math.ceil(probability * 2**32)


def scale_logits(logits: Tensor, bias: Tensor | None, inverse_temperature: float) -> Tensor:
    """Return ``(logits + bias) * inverse_temperature``, each operation rounded to float32; ``[..., V]``."""
    y = logits.float()
    if bias is not None:
        y = y + bias
    return y * torch.tensor(inverse_temperature, dtype=torch.float32, device=y.device)


def row_codes(y: Tensor) -> Tensor:
    """Return the status of each row of ``y`` ``[D, V]``: invalid (NaN, +inf, above 1e9), all forbidden, or fine."""
    invalid = (~(y <= MAX_LOG_WEIGHT)).any(-1)
    forbidden = (y < -MAX_LOG_WEIGHT).all(-1)
    return torch.where(invalid, INVALID_VALUE, torch.where(forbidden, DEGENERATE, OK))


def largest_tokens(y: Tensor) -> Tensor:
    """Return the lowest index of the maximum of each row of ``y`` ``[D, V]``."""
    index = torch.arange(y.shape[-1], device=y.device)
    return torch.where(y == y.amax(-1, keepdim=True), index, y.shape[-1]).amin(-1)


def draw_tokens(y: Tensor, words: Tensor) -> Tensor:
    """Draw one token a row.

    Args:
        y: float32 ``[D, V]``, no row invalid or forbidden as a whole.
        words: int64 ``[D]``, uniform 64-bit words.
    """
    rows, vocab = y.shape
    blocks = -(-vocab // TOKEN_BLOCK)
    y = F.pad(y, (0, blocks * TOKEN_BLOCK - vocab), value=-math.inf).view(rows, blocks, TOKEN_BLOCK)
    most = y.amax(-1)
    alive = most >= -MAX_LOG_WEIGHT
    exponent = block_exponent(torch.where(alive, most, 0))
    top = torch.where(alive, exponent, -(2**32)).amax(-1, keepdim=True)
    weights = scaled_weight(y, exponent[..., None]) * alive[..., None]

    headroom = max(0, (blocks - 1).bit_length() - 4)
    drop = (top - exponent + headroom).clamp(0, 62)
    shares = (weights.sum(-1) >> drop) * alive
    running = shares.cumsum(-1)
    target = mulhi64(words, running[:, -1])
    block = (running <= target[:, None]).sum(-1, keepdim=True)
    rest = target[:, None] - (running - shares).gather(1, block)
    chosen = weights.gather(1, block[..., None].expand(-1, -1, TOKEN_BLOCK)).squeeze(1)
    inside = (chosen.cumsum(-1) >> drop.gather(1, block)) <= rest
    return block.squeeze(1) * TOKEN_BLOCK + inside.sum(-1)


def _revealed(seeds: Tensor, slots: Tensor, length: int, step: int, probability: float) -> Tensor:
    """Return bool ``[P, M, L]``: where children in ``slots`` ``[P, M]``, with seeds ``[P]``, are revealed."""
    blocks = torch.arange(-(-length // 4), device=seeds.device)
    words = philox(seeds[:, None, None], 0, slots[..., None], blocks, counter_word(step, Stream.POSITIONS))
    return torch.stack(words, -1).flatten(2)[..., :length] < reveal_threshold(probability)


def _first(bad: Tensor) -> int | None:
    return int(bad.flatten().nonzero()[0]) if bool(bad.any()) else None


def masked_step(
    tokens: Tensor,
    logits: Tensor,
    *,
    reveal_probability: float,
    inverse_temperature: float,
    bias: Tensor | None,
    ancestors: Tensor | None,
    branch: int,
    seeds: Tensor,
    step: int,
    slots: Tensor | None,
    lengths: Tensor | None,
    stream: Stream = Stream.TOKENS,
) -> tuple[Tensor, int, int]:
    """Return the children ``[P, M, L]``, a status code and the first offending index, as the kernel does.

    Arguments as in :func:`fastguide.ops.masked_step.masked_step`, with ``seeds`` ``[G]`` and the temperature inverted
    (0: the lowest index of the largest logit).
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

    seeds = seeds.repeat_interleave(per_group)
    child_slots = slots.long()[:, None] * branch + torch.arange(branch, device=device)
    children = parents[:, None].expand(-1, branch, -1).clone()
    opened = _revealed(seeds, child_slots, length, step, reveal_probability)
    p, m, at = (opened & (used & (parents == vocab))[:, None]).nonzero(as_tuple=True)
    low, high, _, _ = philox(seeds[p], 0, child_slots[p, m], at, counter_word(step, stream))
    words = word64(low, high)
    for start in range(0, len(p), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        i, k = p[rows], at[rows]
        row_bias = None if bias is None else bias[k] if bias.dim() == 2 else bias
        y = scale_logits(logits[ancestors[i], k], row_bias, inverse_temperature or 1.0)
        codes = row_codes(y)
        if (bad := _first(codes != OK)) is not None:
            return children, int(codes[bad]), int(((i * branch + m[rows]) * length + k)[bad])
        drawn = draw_tokens(y, words[rows]) if inverse_temperature else largest_tokens(y)
        children[i, m[rows], k] = drawn.to(children.dtype)
    return children, OK, -1
