"""Draws of tokens by exact inverse CDF over integer weights, the mirror of ``csrc/core/categorical.h``."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fastguide.reference.exp import MAX_LOG_WEIGHT, block_exponent, scaled_weight
from fastguide.reference.philox import mulhi64

TOKEN_BLOCK = 512
OK, INVALID_VALUE, DEGENERATE, OUT_OF_RANGE = range(4)


def scale_logits(logits: Tensor, bias: Tensor | None, inverse_temperature: float) -> Tensor:
    """Return ``(logits + bias) * inverse_temperature``, each operation rounded to float32; ``[..., V]``."""
    y = logits.float()
    if bias is not None:
        y = y + bias
    # Filled in on the device: a number that is copied there makes the host wait.
    return y * torch.full((), inverse_temperature, dtype=torch.float32, device=y.device)


def row_codes(y: Tensor) -> Tensor:
    """Return the status of each row of ``y`` ``[D, V]``: invalid (NaN, +inf, above 1e9), all forbidden, or fine."""
    invalid = (~(y <= MAX_LOG_WEIGHT)).any(-1)
    forbidden = (y < -MAX_LOG_WEIGHT).all(-1)
    return torch.where(invalid, INVALID_VALUE, torch.where(forbidden, DEGENERATE, OK))


def largest_tokens(y: Tensor) -> Tensor:
    """Return the lowest index of the maximum of each row of ``y`` ``[D, V]``."""
    index = torch.arange(y.shape[-1], device=y.device)
    return torch.where(y == y.amax(-1, keepdim=True), index, y.shape[-1]).amin(-1)


def _weigh(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weights ``[D, blocks, 512]`` of rows ``y`` ``[D, V]``, how far right each block's sum is shifted
    ``[D, blocks]``, and the exponent ``[D, 1]`` of a row's total."""  # fmt: skip
    rows, vocab = y.shape
    blocks = -(-vocab // TOKEN_BLOCK)
    y = F.pad(y, (0, blocks * TOKEN_BLOCK - vocab), value=-math.inf).view(rows, blocks, TOKEN_BLOCK)
    most = y.amax(-1)
    alive = most >= -MAX_LOG_WEIGHT
    exponent = block_exponent(torch.where(alive, most, 0))
    top = torch.where(alive, exponent, -(2**32)).amax(-1, keepdim=True)
    weights = scaled_weight(y, exponent[..., None]) * alive[..., None]
    headroom = max(0, (blocks - 1).bit_length() - 4)
    drop = torch.where(alive, top - exponent + headroom, 62).clamp(0, 62)
    return weights, drop, top + headroom


def threshold(y: Tensor, top_k: int | None, top_p: float | None) -> Tensor:
    """Return ``[D, 1]``: the tokens of a row of ``y`` ``[D, V]`` that are not below it are kept.

    ``top_k`` keeps the tokens that fewer than ``top_k`` exceed. ``top_p`` then keeps, of those, the tokens above which
    lies less than ``ceil(top_p * total)``, both sums those of `draw_tokens` over the tokens in question. So equals are
    kept or dropped together.
    """
    least = torch.full_like(y[:, :1], -math.inf)
    if top_k is not None and top_k < y.shape[-1]:
        least = y.topk(top_k, dim=-1).values[:, -1:]
    if top_p is None or top_p == 1:
        return least
    kept = torch.where(y >= least, y, -math.inf)
    weights, drop, _ = _weigh(kept)

    def mass(bound: Tensor) -> Tensor:
        inside = F.pad(y >= bound, (0, weights.shape[1] * TOKEN_BLOCK - y.shape[-1])).view_as(weights)
        return ((weights * inside).sum(-1) >> drop).sum(-1, keepdim=True)

    total = mass(least)
    share = torch.full((), share_word(top_p), device=y.device)
    needed = mulhi64(share, total) + (share * total != 0).long()
    # Bisection for the first value, in descending order, that has enough at or above it.
    ordered = kept.sort(dim=-1, descending=True).values
    low, high = torch.zeros_like(total), torch.full_like(total, y.shape[-1] - 1)
    for _ in range((y.shape[-1] - 1).bit_length()):  # the one that is found stays
        middle = (low + high) // 2
        enough = mass(ordered.gather(1, middle)) >= needed
        low, high = torch.where(enough, low, middle + 1), torch.where(enough, middle, high)
    return torch.maximum(ordered.gather(1, low), least)


def share_word(p: float) -> int:
    """Return ``ceil(p * 2^64)``, ``0 < p < 1``, as int64 in two's complement."""
    word = math.ceil(p * 2**64)
    return word - 2**64 if word >= 2**63 else word


def row_sums(y: Tensor) -> tuple[Tensor, Tensor]:
    """Return exponents and totals, int64 ``[D]``, of the weights of each row of ``y`` ``[D, V]``."""
    weights, drop, exponent = _weigh(y)
    return exponent.squeeze(-1), (weights.sum(-1) >> drop).sum(-1)


def largest_share(y: Tensor) -> Tensor:
    """Return float64 ``[D]``: the probability of the likeliest token of each row of ``y`` ``[D, V]``, from integers."""
    weights, drop, exponent = _weigh(y)
    total = (weights.sum(-1) >> drop).sum(-1)
    largest = scaled_weight(y.amax(-1), exponent.squeeze(-1))
    return largest.double() / total.double()


def draw_tokens(y: Tensor, words: Tensor) -> Tensor:
    """Draw one token a row.

    Args:
        y: float32 ``[D, V]``, no row invalid or forbidden as a whole.
        words: int64 ``[D]``, uniform 64-bit words.
    """
    weights, drop, _ = _weigh(y)
    shares = weights.sum(-1) >> drop
    running = shares.cumsum(-1)
    target = mulhi64(words, running[:, -1])
    block = (running <= target[:, None]).sum(-1, keepdim=True)
    rest = target[:, None] - (running - shares).gather(1, block)
    chosen = weights.gather(1, block[..., None].expand(-1, -1, TOKEN_BLOCK)).squeeze(1)
    inside = (chosen.cumsum(-1) >> drop.gather(1, block)) <= rest
    return block.squeeze(1) * TOKEN_BLOCK + inside.sum(-1)
