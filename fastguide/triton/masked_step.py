"""``masked_step`` on the GPU: what changes, then a draw for each revealed position.

The first kernel copies the parents, returns tokens to the mask, marks what is revealed with -1 and lists the positions of
particles where some child reveals. The second reads the rows of the list, each once for all children of its particle, and
puts tokens in the place of the marks. The order of the list is that in which programs come, and of no consequence.
Where confidence decides, two kernels before them find the states to be ranked and rank their masked positions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastguide.reference.categorical import TOKEN_BLOCK as _BLOCK
from fastguide.reference.categorical import share_word
from fastguide.reference.philox import Stream
from fastguide.triton import _launch
from fastguide.triton._logits import (
    block_shares,
    draw_wide,
    headroom,
    largest_wide,
    narrow_tile,
    read_rows,
    wide_blocks,
    wide_threshold,
    wide_tile,
)
from fastguide.triton._particles import append, number_of, position_tile, programs, seed_of, state_of, variants_of
from fastguide.triton._status import NEVER, RANGES, RANKS, ROWS, report, trouble
from fastguide.triton.numerics.exp import MAX_LOG_WEIGHT
from fastguide.triton.numerics.philox import POSITIONS, counter_word, mulhi64, philox, word64
from fastguide.triton.numerics.tokens import OK, OUT_OF_RANGE, largest_share, weigh
from fastguide.triton.tuning import config

_MARK = tl.constexpr(-1)
_CONFIDENCE_BITS = tl.constexpr(62)
_ONE_BITS = tl.constexpr(0x3FF0000000000000)
_SCALARS = ("seed", "step", "count", "reveal", "remask", "top_k", "top_p")
_MOST_COUNTED = 2**15


@triton.jit
def _position_words(key, slot, first, word, Q: tl.constexpr):
    """Return the words ``[P, 4 Q]``, as int64, of positions from block ``first`` of four on."""
    block = first + tl.arange(0, Q)[None, :]
    w0, w1, w2, w3 = philox(key[:, None], block * 0, slot[:, None], block, word)
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3))
    return tl.reshape(words, [key.shape[0], 4 * Q]).to(tl.int64)


@triton.jit
def _draw_word(key, slot, at, word):
    """Return the uint64 that draws the tokens at positions of children in slots."""
    w0, w1, _, _ = philox(key, at * 0, slot, at, word)
    return word64(w0, w1)


@triton.jit
def _first_of(keys, masked, wanted, BITS: tl.constexpr):
    """Return which of the masked positions hold the ``wanted`` smallest keys below ``2^BITS``, the lowest ones on ties.

    The bound is found bit by bit: the largest number that fewer than ``wanted`` keys are below.
    """
    bound = wanted.to(tl.int64) * 0
    for bit in range(BITS):
        candidate = bound + ((bound * 0 + 1) << (BITS - 1 - bit))
        below = tl.sum((masked & (keys < candidate[:, None])).to(tl.int32), 1)
        bound = tl.where(below < wanted, candidate, bound)
    under = masked & (keys < bound[:, None])
    equal = masked & (keys == bound[:, None])
    left = wanted - tl.sum(under.to(tl.int32), 1)
    return under | (equal & (tl.cumsum(equal.to(tl.int32), 1) <= left[:, None]))


@triton.jit
def _threshold(x):
    """Return as int64 the number below which a word changes a position: ``x``, or that of the probability it points to."""
    if x.dtype.is_ptr():
        p = tl.load(x)
        scaled = tl.where(p > 0, tl.minimum(p, 1.0), 0.0) * 4294967296.0
        below = scaled.to(tl.int64)
        return below + (below.to(tl.float64) < scaled).to(tl.int64)
    else:
        return x.to(tl.int64)


@triton.jit(do_not_specialize=_SCALARS)
def _change(
    tokens, children, listed, listed_count, status, ranks, ancestors, slots, seeds, seed, step, lengths, counts, count,
    frozen, frozen_stride, states, particles, per_group, branch, length, vocab, most_slot, reveal, remask,
    COUNTED: tl.constexpr, WORDS: tl.constexpr, P: tl.constexpr, L: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0).to(tl.int64) * P + tl.arange(0, P)
    at = tl.program_id(1) * L + tl.arange(0, L)[None, :]
    present = p < particles
    group = p // per_group
    state = state_of(ancestors, p, present)
    number = number_of(slots, p, per_group, present)
    astray = present & ((state < 0) | (state >= states))
    report(status, trouble(astray, p, OUT_OF_RANGE, RANGES))
    late = present & ((number < 0) | (number > most_slot))
    report(status, trouble(late, p + particles, OUT_OF_RANGE, RANGES))
    present = present & (astray == 0) & (late == 0)

    inside = present[:, None] & (at < length)
    where = state[:, None] * length + at
    token = tl.load(tokens + where, mask=inside, other=0)
    used = inside
    if lengths is not None:
        used = used & (at < tl.load(lengths + group, mask=present, other=0)[:, None])
    strange = used & ((token < 0) | (token > vocab))
    report(status, trouble(strange, where + tl.full([], particles, tl.int64) * 2, OUT_OF_RANGE, RANGES))
    masked = used & (token == vocab)
    loose = used & (token != vocab)
    if frozen is not None:
        flags = frozen + state[:, None] * frozen_stride + at
        loose = loose & (tl.load(flags, mask=inside, other=0) == 0)

    key = seed_of(seeds, seed, group, present)
    word = counter_word(step, POSITIONS)
    reveal_below, remask_below = _threshold(reveal), _threshold(remask)
    if COUNTED:
        masks = tl.sum(masked.to(tl.int32), 1)
        if counts is None:
            wanted = masks * 0 + count
        else:
            wanted = tl.minimum(tl.load(counts + group, mask=present, other=0), 2**31 - 1).to(tl.int32)
        every = wanted >= masks
        if ranks is not None:
            decided = every | (wanted == 0)
            order = tl.load(ranks + where, mask=masked & (decided[:, None] == 0), other=0)
            refused = (order >> _CONFIDENCE_BITS) == 1
            code = order & 7
            report(status, trouble(refused, p[:, None] * branch * length + at, code, RANKS))
            ranked = _first_of(order, masked, wanted, _CONFIDENCE_BITS)
            ranked = ranked & (wanted > 0)[:, None]

    opened = tl.zeros([P, L], tl.int32)
    for m in range(branch):
        slot = number * branch + m
        child = token
        if WORDS:
            words = _position_words(key, slot, tl.program_id(1) * (L // 4), word, L // 4)
            child = tl.where(loose & (words < remask_below), vocab, child)
        if COUNTED:
            if ranks is None:
                revealed = _first_of(words, masked, wanted, 32)
            else:
                revealed = ranked
            revealed = tl.where(every[:, None], masked, revealed)
        elif WORDS:
            revealed = masked & (words < reveal_below)
        else:
            revealed = masked & (reveal_below > 0)
        child = tl.where(revealed, _MARK, child)
        tl.store(children + (p * branch + m)[:, None] * length + at, child, mask=inside)
        opened = opened | revealed.to(tl.int32)

    append(listed, listed_count, p[:, None] * length + at, opened, P * L)


@triton.jit(do_not_specialize=_SCALARS)
def _draw_narrow(
    listed, listed_count, children, status, logits, state_stride, row_stride, bias, bias_stride, shift,
    shift_state_stride, shift_row_stride, ancestors, slots, seeds, seed, step, per_group, branch, length, vocab,
    inverse_temperature, top_k, top_p, STREAM: tl.constexpr, CERTAIN: tl.constexpr, CUT: tl.constexpr, R: tl.constexpr,
    B: tl.constexpr,
):  # fmt: skip
    count = tl.load(listed_count)
    v = tl.arange(0, B)[None, :]
    worst = tl.full([R], NEVER, tl.int64)
    word = counter_word(step, STREAM)
    for start in range(tl.program_id(0).to(tl.int64) * R, count, tl.num_programs(0) * R):
        i = start + tl.arange(0, R)
        here = i < count
        entry = tl.load(listed + i, mask=here, other=0).to(tl.int64)
        p = entry // length
        at = entry - p * length
        state = state_of(ancestors, p, here)
        row_bias = bias
        if bias is not None:
            row_bias = bias + at[:, None] * bias_stride + v
        row_shift = shift
        if shift is not None:
            row_shift = shift + state[:, None] * shift_state_stride + at[:, None] * shift_row_stride + v
        row = logits + state[:, None] * state_stride + at[:, None] * row_stride + v
        inside = here[:, None] & (v < vocab)
        y, most, code = read_rows(row, row_bias, row_shift, inside, inverse_temperature, top_k, top_p, CUT)
        if CERTAIN:
            token = tl.min(tl.where(y == most[:, None], v, B), 1)
        else:
            weights, _, total = weigh(y, most)
            running = tl.cumsum(weights, 1)
            number = number_of(slots, p, per_group, here)
            key = seed_of(seeds, seed, p // per_group, here)
        for m in range(branch):
            child = (p * branch + m) * length + at
            drawn = here & (tl.load(children + child, mask=here, other=0) == _MARK)
            if not CERTAIN:
                target = mulhi64(_draw_word(key, number * branch + m, at, word), total)
                token = tl.sum((running <= target[:, None]).to(tl.int32), 1)
            worst = tl.minimum(worst, trouble(drawn & (code != OK), child, code, ROWS))
            tl.store(children + child, tl.where(code == OK, token, vocab), mask=drawn)
    report(status, worst)


@triton.jit(do_not_specialize=_SCALARS)
def _draw_wide(
    listed, listed_count, children, status, logits, state_stride, row_stride, bias, bias_stride, shift,
    shift_state_stride, shift_row_stride, ancestors, slots, seeds, seed, step, per_group, branch, length, vocab,
    headroom, inverse_temperature, top_k, top_p, STREAM: tl.constexpr, CERTAIN: tl.constexpr, CUT: tl.constexpr,
    N: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    count = tl.load(listed_count)
    worst = tl.full([], NEVER, tl.int64)
    word = counter_word(step, STREAM)
    for i in range(tl.program_id(0).to(tl.int64), count, tl.num_programs(0)):
        entry = tl.load(listed + i).to(tl.int64)
        p = entry // length
        at = entry - p * length
        state = state_of(ancestors, p, True)
        row_bias = bias
        if bias is not None:
            row_bias = bias + at * bias_stride
        row_shift = shift
        if shift is not None:
            row_shift = shift + state * shift_state_stride + at * shift_row_stride
        row = logits + state * state_stride + at * row_stride
        least = -MAX_LOG_WEIGHT
        if CUT:
            least = wide_threshold(row, row_bias, vocab, inverse_temperature, headroom, top_k, top_p, N, C)
        exponents, sums, most, code = wide_blocks(row, row_bias, row_shift, vocab, inverse_temperature, least, N, C)
        if CERTAIN:
            token = largest_wide(row, row_bias, vocab, inverse_temperature, most, N, C)
        else:
            drop, shares, total, _ = block_shares(exponents, sums, headroom)
            number = number_of(slots, p, per_group, True)
            key = seed_of(seeds, seed, p // per_group, True)
        for m in range(branch):
            child = (p * branch + m) * length + at
            if tl.load(children + child) == _MARK:
                if not CERTAIN:
                    drawn = _draw_word(key, number * branch + m, at, word)
                    token = draw_wide(
                        row, row_bias, row_shift, vocab, inverse_temperature, least, drawn, exponents, drop,
                        shares, total, N, C,
                    )  # fmt: skip
                worst = tl.minimum(worst, trouble(code != OK, child, code, ROWS))
                tl.store(children + child, tl.where(code == OK, token, vocab))
    tl.atomic_min(status, worst, mask=worst < NEVER)


@triton.jit(do_not_specialize=_SCALARS)
def _find_ranked(
    tokens, needed, ancestors, lengths, counts, count, states, particles, per_group, length, vocab, P: tl.constexpr,
    L: tl.constexpr,
):  # fmt: skip
    """Raise ``needed`` ``[U]`` to the most positions that a particle needs ranked of its state."""
    p = tl.program_id(0).to(tl.int64) * P + tl.arange(0, P)
    at = tl.arange(0, L)[None, :]
    present = p < particles
    group = p // per_group
    state = state_of(ancestors, p, present)
    present = present & (state >= 0) & (state < states)
    used = tl.full([P], 0, tl.int64) + length
    if lengths is not None:
        used = tl.load(lengths + group, mask=present, other=0)
    inside = present[:, None] & (at < used[:, None]) & (at < length)
    token = tl.load(tokens + state[:, None] * length + at, mask=inside, other=0)
    masks = tl.sum((inside & (token == vocab)).to(tl.int32), 1)
    wanted = masks.to(tl.int64) * 0 + count
    if counts is not None:
        wanted = tl.load(counts + group, mask=present, other=0)
    tl.atomic_max(needed + state, used.to(tl.int32), mask=present & (wanted > 0) & (wanted < masks))


@triton.jit
def _rank_key(share, code):
    """Return the key of a row: the likeliest has the smallest; that of a bad row holds its code."""
    return tl.where(
        code == OK,
        -(share.to(tl.int64, bitcast=True) - _ONE_BITS),
        (code.to(tl.int64) * 0 + 1 << _CONFIDENCE_BITS) + code,
    )


@triton.jit(do_not_specialize=_SCALARS)
def _rank_narrow(
    tokens, needed, ranks, logits, state_stride, row_stride, bias, bias_stride, rows, length, vocab,
    inverse_temperature, top_k, top_p, CUT: tl.constexpr, R: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    state = i // length
    at = i - state * length
    here = i < rows
    here = here & (at < tl.load(needed + state, mask=here, other=0))
    here = here & (tl.load(tokens + i, mask=here, other=0) == vocab)
    if tl.max(here.to(tl.int32), 0) > 0:
        v = tl.arange(0, B)[None, :]
        row_bias = bias
        if bias is not None:
            row_bias = bias + at[:, None] * bias_stride + v
        row = logits + state[:, None] * state_stride + at[:, None] * row_stride + v
        inside = here[:, None] & (v < vocab)
        y, most, code = read_rows(row, row_bias, None, inside, inverse_temperature, top_k, top_p, CUT)
        _, exponent, total = weigh(y, most)
        share = largest_share(most, exponent, total)
        tl.store(ranks + i, _rank_key(share, code), mask=here)


@triton.jit(do_not_specialize=_SCALARS)
def _rank_wide(
    tokens, needed, ranks, logits, state_stride, row_stride, bias, bias_stride, rows, length, vocab, headroom,
    inverse_temperature, top_k, top_p, CUT: tl.constexpr, N: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0).to(tl.int64)
    state = i // length
    at = i - state * length
    if (at < tl.load(needed + state)) & (tl.load(tokens + i) == vocab):
        row_bias = bias
        if bias is not None:
            row_bias = bias + at * bias_stride
        row = logits + state * state_stride + at * row_stride
        least = -MAX_LOG_WEIGHT
        if CUT:
            least = wide_threshold(row, row_bias, vocab, inverse_temperature, headroom, top_k, top_p, N, C)
        exponents, sums, most, code = wide_blocks(row, row_bias, None, vocab, inverse_temperature, least, N, C)
        _, _, total, exponent = block_shares(exponents, sums, headroom)
        tl.store(ranks + i, _rank_key(largest_share(most, exponent, total), code))


def masked_step(
    tokens: Tensor,
    logits: Tensor,
    children: Tensor,
    reveal_probability: float | Tensor,
    counts: Tensor | None,
    count: int,
    confidence: bool,
    remask_probability: float | Tensor,
    frozen: Tensor | None,
    inverse_temperature: float,
    top_k: int,
    top_p: float,
    bias: Tensor | None,
    shift: Tensor | None,
    ancestors: Tensor | None,
    seeds: Tensor | None,
    seed: int,
    step: int | Tensor,
    slots: Tensor | None,
    lengths: Tensor | None,
    status: Tensor,
    stream: Stream = Stream.TOKENS,
) -> None:
    """Write ``children`` ``[P, M, L]``; arguments as in `fastguide.ops._native.masked_step`.

    ``step`` may be an int64 tensor of one element, the two probabilities float64 tensors of one. After an error children
    hold anything but marks: a token, the mask, or what was there before where the ancestor or slot is out of range.

    Raises:
        ValueError: counts decide and L is above 32,768: a row of positions has to fit a program.
    """
    states, length, vocab = logits.shape
    particles, branch, _ = children.shape
    device = tokens.device
    if children.numel() == 0:
        return
    per_group = particles // (1 if seeds is None else len(seeds))
    counted = counts is not None or count >= 0
    if counted and length > _MOST_COUNTED:
        raise ValueError(
            f'reveal_count: backend "triton" takes at most {_MOST_COUNTED:,} positions, got {length:,}; use '
            'reveal_probability, or backend="torch"'
        )
    strides = (logits.stride(0), logits.stride(1))
    row_bias = (bias, 0 if bias is None or bias.dim() == 1 else vocab)
    row_shift = (shift, *((0, 0) if shift is None else shift.stride()[:2]))
    share = 0 if top_p == 1 else share_word(top_p)
    cut = (inverse_temperature or 1.0, top_k if top_k < vocab else 0, share)
    certain, cuts = inverse_temperature == 0, cut[1] > 0 or share != 0

    def tile_of(
        kernel: str, size: int, tile: Callable[..., dict[str, int]], *rest: int, **more: bool
    ) -> dict[str, int]:
        return tile(config(f"masked_step.{kernel}", size, device), *rest, **more)

    ranks = None
    if confidence:
        needed = torch.zeros(states, dtype=torch.int32, device=device)
        ranks = torch.empty((states, length), dtype=torch.int64, device=device)
        tile = tile_of("_find_ranked", particles * length, position_tile, length, whole=True)
        _find_ranked[(_launch.cdiv(particles, tile["P"]),)](
            tokens, needed, ancestors, lengths, counts, count, states, particles, per_group, length, vocab, **tile
        )
        rows = states * length
        ranked = (tokens, needed, ranks, logits, *strides, *row_bias, rows, length, vocab)
        if vocab <= _BLOCK:
            narrow = tile_of("_rank_narrow", rows, narrow_tile, vocab)
            _rank_narrow[(_launch.cdiv(rows, narrow["R"]),)](*ranked, *cut, CUT=cuts, **narrow, **_launch.EXACT)
        elif rows:
            wide = tile_of("_rank_wide", rows, wide_tile, vocab)
            _rank_wide[(rows,)](*ranked, headroom(vocab), *cut, CUT=cuts, **wide, **_launch.EXACT)

    entries = particles * length
    listed = torch.empty(entries, dtype=torch.int32 if entries < 2**31 else torch.int64, device=device)
    listed_count = torch.zeros(1, dtype=torch.int64, device=device)
    reveal, remask = _threshold_or_tensor(reveal_probability), _threshold_or_tensor(remask_probability)
    by_chance = not counted and (isinstance(reveal, Tensor) or 0 < reveal < 2**32)
    words = by_chance or isinstance(remask, Tensor) or remask > 0 or (counted and not confidence)
    drawn = (ancestors, slots, seeds, seed, step)
    tile = tile_of("_change", entries, position_tile, length, whole=counted)
    _change[(_launch.cdiv(particles, tile["P"]), _launch.cdiv(length, tile["L"]))](
        tokens, children, listed, listed_count, status, ranks, *drawn, lengths, counts, count,
        None if frozen is None else frozen.view(torch.uint8), 0 if frozen is None or frozen.dim() == 1 else length,
        states, particles, per_group, branch, length, vocab, (2**32 - branch) // branch, reveal, remask,
        COUNTED=counted, WORDS=words, **tile, **_launch.EXACT,
    )  # fmt: skip
    row = (listed, listed_count, children, status, logits, *strides, *row_bias, *row_shift, *drawn, per_group, branch)
    modes = {"STREAM": int(stream), "CERTAIN": certain, "CUT": cuts and not certain, **_launch.EXACT}
    if vocab <= _BLOCK:
        narrow = tile_of("_draw_narrow", entries, narrow_tile, vocab)
        grid = programs(_launch.cdiv(entries, narrow["R"]), device)
        _draw_narrow[(grid,)](*row, length, vocab, *cut, **modes, **narrow)
    else:
        grid = programs(entries, device)
        wide = tile_of("_draw_wide", entries, wide_tile, vocab)
        _draw_wide[(grid,)](*row, length, vocab, headroom(vocab), *cut, **modes, **wide)


def _threshold_or_tensor(probability: float | Tensor) -> int | Tensor:
    """Return the number below which a 32-bit word changes a position; a tensor, which `_threshold` reads, as it is."""
    return probability if isinstance(probability, Tensor) else math.ceil(probability * 2**32)


def _variants() -> list[_launch.Variant]:
    def narrow(kernel: Any, label: str, vocab: int, **constants: Any) -> list[_launch.Variant]:
        return variants_of(kernel, partial(narrow_tile, vocab=vocab), constants, f"V = {vocab}{label}")

    def wide(kernel: Any, label: str, **constants: Any) -> list[_launch.Variant]:
        return variants_of(kernel, partial(wide_tile, vocab=32_000), constants, f"V = 32,000{label}")

    positions = partial(position_tile, length=64)
    plain = {"ranks": None, "counts": None, "frozen": None, "lengths": None, "ancestors": None, "slots": None}
    none = {"bias": None, "shift": None}
    found = [
        *variants_of(_change, positions, {**plain, "COUNTED": False, "WORDS": True}, "probability"),
        *variants_of(_change, positions, {"ranks": None, "COUNTED": True, "WORDS": True}, "count"),
        *variants_of(_change, positions, {"COUNTED": True, "WORDS": True}, "confidence"),
        *variants_of(_find_ranked, positions, {}),
    ]
    mode: dict[str, Any] = {"STREAM": int(Stream.TOKENS), "CERTAIN": False}
    for cut, label in ((False, ""), (True, ", cut")):
        for vocab in (22, 512):
            found += narrow(_draw_narrow, label, vocab, **none, **mode, CUT=cut)
            found += narrow(_draw_narrow, f"{label}, bias, shift", vocab, **mode, CUT=cut)
            found += narrow(_rank_narrow, label, vocab, CUT=cut)
        found += wide(_draw_wide, f"{label}, bias, shift", **mode, CUT=cut)
        found += wide(_rank_wide, label, CUT=cut)
    certain = {"STREAM": int(Stream.VALUE), "CERTAIN": True, "CUT": False}
    found += narrow(_draw_narrow, ", largest", 22, **none, **certain)
    found += wide(_draw_wide, ", largest", **none, **certain)
    return found


VARIANTS = _variants()
