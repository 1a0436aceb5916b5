"""``gaussian_log_ratio`` and ``masked_log_ratio`` in plain torch: float64 sums in a fixed order."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from fastguide.reference.exp import MAX_LOG_WEIGHT, block_exponent, scaled_weight
from fastguide.reference.gaussian_step import check_particles, per_particle
from fastguide.reference.log import LN2, log
from fastguide.reference.masked_step import TOKEN_BLOCK, row_codes, scale_logits

OK, _, DEGENERATE, OUT_OF_RANGE = range(4)
SUMS = 32
"""Partial sums of a Gaussian ratio: element ``i`` goes to sum ``i mod 32``, and the sums are folded in halves."""


def gaussian_log_ratio(
    children: Tensor,
    x: Tensor,
    prediction: Tensor,
    *,
    coefficients: Tensor,
    shift: Tensor,
    ancestors: Tensor | None,
) -> tuple[Tensor, int, int]:
    """Return float64 ``[P, M]``, a status code and the first offending index, as the kernel does.

    ``log p - log q = e (e - 2 d) / (2 sigma^2)`` summed over elements, ``d`` the child less the mean of ``p`` and ``e``
    the shift of the mean, all in float64. Coefficients are float32 ``[4, G]`` or ``[4, 1]``.
    """
    states, (particles, branch) = len(x), children.shape[:2]
    code, index = check_particles(states, particles, ancestors, None, branch)
    if code != OK or children.numel() == 0:
        return torch.zeros((particles, branch), dtype=torch.float64, device=x.device), code, index
    parents = torch.arange(states, device=x.device) if ancestors is None else ancestors.long()
    of_x, of_prediction, of_shift, sigma = per_particle(coefficients.double(), particles)

    def gather(rows: Tensor) -> Tensor:  # [P, 1, D] float64
        return rows.reshape(states, -1)[parents][:, None].double()

    e = gather(shift) * of_shift
    d = children.reshape(particles, branch, -1).double() - (gather(x) * of_x + gather(prediction) * of_prediction)
    terms = e * (e - d * 2.0)
    terms = F.pad(terms, (0, -terms.shape[-1] % SUMS)).reshape(particles, branch, -1, SUMS)
    sums = torch.zeros_like(terms[:, :, 0])
    for i in range(terms.shape[2]):
        sums = sums + terms[:, :, i]
    while sums.shape[-1] > 1:
        half = sums.shape[-1] // 2
        sums = sums[..., :half] + sums[..., half:]
    sigma = sigma.squeeze(-1)
    return sums.squeeze(-1) / (2.0 * (sigma * sigma)), OK, -1


def row_sums(y: Tensor) -> tuple[Tensor, Tensor]:
    """Return exponents and sums, int64 ``[R]``, of the integer weights of rows ``y`` ``[R, V]``, as tokens are drawn by."""
    rows, vocab = y.shape
    blocks = -(-vocab // TOKEN_BLOCK)
    y = F.pad(y, (0, blocks * TOKEN_BLOCK - vocab), value=-math.inf).view(rows, blocks, TOKEN_BLOCK)
    most = y.amax(-1)
    alive = most >= -MAX_LOG_WEIGHT
    exponent = block_exponent(torch.where(alive, most, 0))
    top = torch.where(alive, exponent, -(2**32)).amax(-1, keepdim=True)
    weights = scaled_weight(y, exponent[..., None]) * alive[..., None]
    headroom = max(0, (blocks - 1).bit_length() - 4)
    shares = (weights.sum(-1) >> (top - exponent + headroom).clamp(0, 62)) * alive
    return top.squeeze(-1), shares.sum(-1)


def masked_log_ratio(
    tokens: Tensor,
    children: Tensor,
    logits: Tensor,
    shift: Tensor,
    *,
    inverse_temperature: float,
    bias: Tensor | None,
    ancestors: Tensor | None,
    lengths: Tensor | None,
) -> tuple[Tensor, int, int]:
    """Return float64 ``[P, M]``, a status code and the first offending index, as the kernel does.

    At a revealed position ``log p - log q = log(sum e^(y + shift) / sum e^y) - shift``, the sums those of the integer
    weights, the last term the shift that float32 knows, ``fl(y + shift) - y``. Positions add up in increasing order.
    """
    states, length = tokens.shape
    vocab, device = logits.shape[-1], tokens.device
    particles, branch = children.shape[:2]
    ratios = torch.zeros((particles, branch), dtype=torch.float64, device=device)
    code, index = check_particles(states, particles, ancestors, None, branch)
    if code != OK:
        return ratios, code, index
    parents = torch.arange(states, device=device) if ancestors is None else ancestors.long()
    used = torch.ones((particles, length), dtype=torch.bool, device=device)
    if lengths is not None:
        used = torch.arange(length, device=device) < lengths.repeat_interleave(particles // len(lengths))[:, None]
    row = parents[:, None] * length + torch.arange(length, device=device)

    before = tokens[parents]
    strange = used & ((before < 0) | (before > vocab))
    if bool(strange.any()):
        return ratios, OUT_OF_RANGE, particles + int(row[strange].amin())
    strange = used[:, None] & ((children < 0) | (children > vocab))
    if bool(strange.any()):
        return ratios, OUT_OF_RANGE, particles + states * length + int(strange.flatten().nonzero()[0])

    revealed = (used & (before == vocab))[:, None] & (children != vocab)
    rows = row[:, None].expand_as(children)[revealed].sort().values
    rows = rows[torch.diff(rows, prepend=rows.new_tensor([-1])) > 0]
    u, at = rows // length, rows % length
    row_bias = None if bias is None else bias[at] if bias.dim() == 2 else bias
    y = scale_logits(logits[u, at], row_bias, inverse_temperature)
    shifted = torch.where(y >= -MAX_LOG_WEIGHT, y + shift[u, at], -math.inf)
    codes = torch.stack((row_codes(y), row_codes(shifted)), -1)
    if bool((codes != OK).any()):
        first = int((codes != OK).flatten().nonzero()[0])
        return ratios, int(codes.flatten()[first]), 2 * int(rows[first // 2]) + first % 2
    (exponent, total), (shifted_exponent, shifted_total) = row_sums(y), row_sums(shifted)
    change = (shifted_exponent - exponent).double() * LN2 + (log(shifted_total.double()) - log(total.double()))

    where = torch.zeros(states * length, dtype=torch.int64, device=device)
    where[rows] = torch.arange(len(rows), device=device)
    impossible = torch.zeros_like(revealed)
    for i in range(length):
        p, m = revealed[:, :, i].nonzero(as_tuple=True)
        r, token = where[row[p, i]], children[p, m, i].long()
        drawn, drawn_shifted = y[r, token], shifted[r, token]
        impossible[p, m, i] = ~((drawn >= -MAX_LOG_WEIGHT) & (drawn_shifted >= -MAX_LOG_WEIGHT))
        ratios[p, m] = ratios[p, m] + (change[r] - (drawn_shifted.double() - drawn.double()))
    if bool(impossible.any()):
        return ratios, DEGENERATE, 2 * states * length + int(impossible.flatten().nonzero()[0])
    return ratios, OK, -1
