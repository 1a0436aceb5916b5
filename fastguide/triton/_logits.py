"""Rows of logits as masked operations read them: scaled, checked, cut to the tokens that may be drawn, shifted, weighed.

A row of at most one block of 512 tokens lies in a tile ``[R, B]`` with others. A wider one is read by a program of its own in
tiles ``[C, 512]`` of C blocks; what it keeps of them, an exponent and a sum a block, lies in registers ``[N, C]``.
"""

from __future__ import annotations

import triton
import triton.language as tl

from fastguide.reference.categorical import TOKEN_BLOCK as _BLOCK
from fastguide.triton._launch import cdiv, power_of_two
from fastguide.triton.numerics.blocks import shift as shift_by
from fastguide.triton.numerics.exp import MAX_LOG_WEIGHT, scaled_weight
from fastguide.triton.numerics.philox import mulhi64
from fastguide.triton.numerics.tokens import (
    LEAST_KEY,
    NO_EXPONENT,
    TOKEN_BLOCK,
    block_threshold,
    invalid_values,
    ordered,
    row_codes,
    scale_logits,
    share_of_total,
    value_of,
    weigh,
)
from fastguide.triton.tuning import Config


@triton.jit
def read_rows(logits, bias, shift, inside, inverse_temperature, top_k, top_p, CUT: tl.constexpr):
    """Read rows ``[R, B]`` from pointers (``bias`` and ``shift`` may be None): what may be drawn, largest values, codes.

    A token that is forbidden, cut or padding is -inf. A row that forbids all of its tokens does so with a shift too, so the
    code of what is left tells of both.
    """
    y = scale_logits(logits, bias, inside, inverse_temperature)
    invalid = invalid_values(y)
    if CUT:
        least = tl.maximum(block_threshold(y, top_k, top_p), -MAX_LOG_WEIGHT)
        y = tl.where(y >= least[:, None], y, float("-inf"))
    else:
        y = tl.where(y >= -MAX_LOG_WEIGHT, y, float("-inf"))
    if shift is not None:
        y = _add_shift(y, shift)
        invalid = invalid | invalid_values(y)
    most = tl.max(y, 1)
    return y, most, row_codes(tl.max(invalid.to(tl.int32), 1) > 0, most)


@triton.jit
def _add_shift(y, shift):
    """Return ``y`` plus a shift, from pointers, where it is not -inf."""
    alive = y > float("-inf")
    return tl.where(alive, y + tl.load(shift, mask=alive, other=0.0), float("-inf"))


@triton.jit
def shift_rows(y, shift):
    """Return rows ``[R, B]`` plus a shift, from pointers, where they are not -inf, largest values and codes."""
    y = _add_shift(y, shift)
    most = tl.max(y, 1)
    return y, most, row_codes(tl.max(invalid_values(y).to(tl.int32), 1) > 0, most)


@triton.jit
def _read_blocks(logits, bias, first, vocab, inverse_temperature, C: tl.constexpr):
    """Return the scaled logits ``[C, 512]`` of a row from block ``first`` on, and their offsets."""
    v = first * TOKEN_BLOCK + tl.arange(0, C)[:, None] * TOKEN_BLOCK + tl.arange(0, TOKEN_BLOCK)[None, :]
    row_bias = bias
    if bias is not None:
        row_bias = bias + v
    return scale_logits(logits + v, row_bias, v < vocab, inverse_temperature), v


@triton.jit
def wide_blocks(logits, bias, shift, vocab, inverse_temperature, least, N: tl.constexpr, C: tl.constexpr):
    """Read a row and return exponents and sums ``[N, C]`` of its blocks, its largest value and its code.

    Tokens below ``least`` are left out, the others shifted; as in `read_rows`, the code tells of before and after.
    """
    exponents = tl.full([N, C], NO_EXPONENT, tl.int64)
    sums = tl.zeros([N, C], tl.int64)
    most = tl.full([C], float("-inf"), tl.float32)
    invalid = tl.zeros([C, TOKEN_BLOCK], tl.int32)
    for i in range(N):
        y, v = _read_blocks(logits, bias, i * C, vocab, inverse_temperature, C)
        invalid = invalid | invalid_values(y).to(tl.int32)
        y = tl.where(y >= least, y, float("-inf"))
        if shift is not None:
            y = _add_shift(y, shift + v)
            invalid = invalid | invalid_values(y).to(tl.int32)
        of_block = tl.max(y, 1)
        most = tl.maximum(most, of_block)
        _, exponent, total = weigh(y, of_block)
        here = tl.arange(0, N)[:, None] == i
        exponents = tl.where(here, exponent[None, :], exponents)
        sums = tl.where(here, total[None, :], sums)
    largest = tl.max(most, 0)
    code = row_codes(tl.max(tl.max(invalid, 1), 0) > 0, largest)
    return exponents, sums, largest, code


@triton.jit
def block_shares(exponents, sums, headroom):
    """Return by how much sums of blocks are shifted right, what is left of them, their total, and the row's exponent."""
    top = tl.max(tl.max(exponents, 1), 0)
    drop = tl.minimum(top - exponents, 63) + headroom
    shares = shift_by(sums, -drop)
    return drop, shares, tl.sum(tl.sum(shares, 1), 0), top + headroom


@triton.jit
def wide_threshold(logits, bias, vocab, inverse_temperature, headroom, top_k, top_p, N: tl.constexpr, C: tl.constexpr):
    """Return what the tokens of a row must reach to be kept, at least -1e9, as `block_threshold` does."""
    one = tl.full([], 1, tl.int64)
    least = one * LEAST_KEY
    if top_k > 0:
        for bit in range(32):
            candidate = least + (one << (31 - bit))
            reached = tl.zeros([C], tl.int32)
            for i in range(N):
                y, v = _read_blocks(logits, bias, i * C, vocab, inverse_temperature, C)
                reached += tl.sum(((v < vocab) & (ordered(y) >= candidate)).to(tl.int32), 1)
            least = tl.where(tl.sum(reached, 0) >= top_k, candidate, least)
    bound = least
    if top_p != 0:
        kept = tl.maximum(value_of(least.to(tl.int32)), -MAX_LOG_WEIGHT)
        exponents, sums, _, _ = wide_blocks(logits, bias, None, vocab, inverse_temperature, kept, N, C)
        drop, _, total, _ = block_shares(exponents, sums, headroom)
        needed = share_of_total(top_p, total)
        bound = one * LEAST_KEY
        for bit in range(32):
            candidate = bound + (one << (31 - bit))
            held = tl.zeros([C], tl.int64)
            for i in range(N):
                y = _read_blocks(logits, bias, i * C, vocab, inverse_temperature, C)[0]
                y = tl.where((y >= kept) & (ordered(y) >= candidate), y, float("-inf"))
                here = tl.arange(0, N)[:, None] == i
                exponent = tl.sum(tl.where(here, exponents, 0), 0)
                by = tl.sum(tl.where(here, drop, 0), 0)
                held += shift_by(tl.sum(scaled_weight(y, exponent[:, None]), 1), -by)
            bound = tl.where(tl.sum(held, 0) >= needed, candidate, bound)
    return tl.maximum(value_of(tl.maximum(bound, least).to(tl.int32)), -MAX_LOG_WEIGHT)


@triton.jit
def draw_wide(
    logits, bias, shift, vocab, inverse_temperature, least, word, exponents, drop, shares, total,
    N: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Return the token that a word draws from a row whose blocks are weighed; only the chosen block is read again."""
    shares = tl.reshape(shares, [N * C])
    running = tl.cumsum(shares, 0)
    target = mulhi64(word, total)
    block = tl.sum((running <= target).to(tl.int32), 0)
    chosen = tl.arange(0, N * C) == block
    rest = target - tl.sum(tl.where(chosen, running - shares, 0), 0)
    exponent = tl.sum(tl.where(chosen, tl.reshape(exponents, [N * C]), 0), 0)
    by = tl.sum(tl.where(chosen, tl.reshape(drop, [N * C]), 0), 0)
    y, v = _read_blocks(logits, bias, block, vocab, inverse_temperature, 1)
    y = tl.where(y >= least, y, float("-inf"))
    if shift is not None:
        y = _add_shift(y, shift + v)
    prefix = tl.cumsum(tl.reshape(scaled_weight(y, exponent), [TOKEN_BLOCK]), 0)
    return block * TOKEN_BLOCK + tl.sum((shift_by(prefix, -by) <= rest).to(tl.int32), 0)


@triton.jit
def largest_wide(logits, bias, vocab, inverse_temperature, most, N: tl.constexpr, C: tl.constexpr):
    """Return the lowest index of the largest value ``most`` of a row."""
    first = tl.full([C], 2**31 - 1, tl.int32)
    for i in range(N):
        y, v = _read_blocks(logits, bias, i * C, vocab, inverse_temperature, C)
        first = tl.minimum(first, tl.min(tl.where(y == most, v, 2**31 - 1), 1))
    return tl.min(first, 0)


def headroom(vocab: int) -> int:
    """Return the bits that sums of blocks give up so that their total fits."""
    return max(0, (cdiv(vocab, _BLOCK) - 1).bit_length() - 4)


def narrow_tile(chosen: Config, vocab: int) -> dict[str, int]:
    """Return the rows R of one block and the tokens B of a program."""
    tokens = power_of_two(max(vocab, 2))
    return {"R": max(2, chosen.tile // tokens), "B": tokens, "num_warps": chosen.warps}


def wide_tile(chosen: Config, vocab: int) -> dict[str, int]:
    """Return how often, N, a program reads C blocks of a row at once."""
    blocks = power_of_two(cdiv(vocab, _BLOCK))
    together = min(blocks, chosen.tile // _BLOCK)
    return {"N": blocks // together, "C": together, "num_warps": chosen.warps}
