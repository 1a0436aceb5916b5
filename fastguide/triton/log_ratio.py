"""``gaussian_log_ratio`` and ``masked_log_ratio`` on the GPU: float64 sums in the order of the reference.

Gaussian: 32 sums a child, element ``i`` in sum ``i mod 32``, folded in halves. Masked: a first kernel lists the positions of
particles where some child was revealed, a second reads their rows and writes a term a child, a third adds the terms of a
child from left to right.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastguide.reference.categorical import TOKEN_BLOCK as _BLOCK
from fastguide.reference.categorical import share_word
from fastguide.triton import _launch
from fastguide.triton._logits import (
    block_shares,
    headroom,
    narrow_tile,
    read_rows,
    shift_rows,
    wide_blocks,
    wide_threshold,
    wide_tile,
)
from fastguide.triton._particles import append, coefficient, position_tile, programs, state_of, variant, variants_of
from fastguide.triton._status import NEVER, RANGES, ROWS, report, trouble
from fastguide.triton.numerics.exp import MAX_LOG_WEIGHT
from fastguide.triton.numerics.log import LN2, log_fixed
from fastguide.triton.numerics.tokens import DEGENERATE, OK, OUT_OF_RANGE, scale_logits, weigh
from fastguide.triton.tuning import Config, config, variants

_SUMS = tl.constexpr(32)
_UNROLL = tl.constexpr(4)
_SCALARS = ("top_k", "top_p")


@triton.jit
def _load(rows, at, inside):
    return tl.load(rows + at, mask=inside, other=0.0).to(tl.float32).to(tl.float64)


@triton.jit
def _gaussian(
    children, x, x_stride, prediction, prediction_stride, shift, shift_stride, ratios, status, coefficients, number_x,
    number_prediction, number_shift, number_sigma, groups, ancestors, states, particles, per_group, branch, size,
    R: tl.constexpr,
):  # fmt: skip
    child = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    p = child // branch
    present = p < particles
    group = p // per_group
    state = state_of(ancestors, p, present)
    astray = present & ((state < 0) | (state >= states))
    report(status, trouble(astray, p, OUT_OF_RANGE, RANGES))
    present = present & (astray == 0)

    of_x = coefficient(coefficients, number_x, 0, groups, group, present).to(tl.float64)
    of_prediction = coefficient(coefficients, number_prediction, 1, groups, group, present).to(tl.float64)
    of_shift = coefficient(coefficients, number_shift, 2, groups, group, present).to(tl.float64)
    sigma = tl.reshape(coefficient(coefficients, number_sigma, 3, groups, group, present), [R]).to(tl.float64)
    state = state[:, None]
    sums = tl.zeros([R, _SUMS], tl.float64)
    for first in range(0, size, _SUMS * _UNROLL):
        for i in tl.static_range(_UNROLL):
            d = first + i * _SUMS + tl.arange(0, _SUMS)[None, :]
            inside = present[:, None] & (d < size)
            e = _load(shift, state * shift_stride + d, inside) * of_shift
            mean = _load(x, state * x_stride + d, inside) * of_x
            mean = mean + _load(prediction, state * prediction_stride + d, inside) * of_prediction
            distance = _load(children, child[:, None] * size + d, inside) - mean
            sums = tl.where(inside, sums + e * (e - distance * 2.0), sums)
    sums = tl.sum(tl.reshape(sums, [R, 2, 16]), 1)
    sums = tl.sum(tl.reshape(sums, [R, 2, 8]), 1)
    sums = tl.sum(tl.reshape(sums, [R, 2, 4]), 1)
    sums = tl.sum(tl.reshape(sums, [R, 2, 2]), 1)
    sums = tl.sum(sums, 1)
    scale = tl.where(present, sigma * sigma * 2.0, 1.0)
    tl.store(ratios + child, sums / scale, mask=present)


def gaussian_log_ratio(
    children: Tensor,
    x: Tensor,
    prediction: Tensor,
    shift: Tensor,
    ratios: Tensor,
    coefficients: Tensor | None,
    numbers: Sequence[float | Tensor],
    ancestors: Tensor | None,
    status: Tensor,
) -> None:
    """Write ``ratios`` ``[P, M]``; arguments as in `fastguide.ops._native.gaussian_log_ratio`."""
    particles, branch = children.shape[:2]
    if ratios.numel() == 0:
        return
    groups = 1 if coefficients is None else coefficients.shape[1]
    rows, warps = config("log_ratio._gaussian", ratios.numel(), x.device)
    _gaussian[(_launch.cdiv(ratios.numel(), rows),)](
        children, x, x.stride(0), prediction, prediction.stride(0), shift, shift.stride(0), ratios, status, coefficients,
        *numbers, groups, ancestors, x.shape[0], particles, particles // groups, branch, math.prod(x.shape[1:]), R=rows,
        num_warps=warps, **_launch.EXACT,
    )  # fmt: skip


@triton.jit
def _list_revealed(
    tokens, children, terms, listed, listed_count, status, ancestors, lengths, states, particles, per_group, branch,
    length, vocab, P: tl.constexpr, L: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0).to(tl.int64) * P + tl.arange(0, P)
    at = tl.program_id(1) * L + tl.arange(0, L)[None, :]
    present = p < particles
    state = state_of(ancestors, p, present)
    astray = present & ((state < 0) | (state >= states))
    report(status, trouble(astray, p, OUT_OF_RANGE, RANGES))
    inside = (present & (astray == 0))[:, None] & (at < length)
    used = inside
    if lengths is not None:
        used = used & (at < tl.load(lengths + p // per_group, mask=present, other=0)[:, None])
    row = state[:, None] * length + at
    token = tl.load(tokens + row, mask=inside, other=0)
    strange = used & ((token < 0) | (token > vocab))
    report(status, trouble(strange, row + particles, OUT_OF_RANGE, RANGES))
    opened = tl.zeros([P, L], tl.int32)
    worst = tl.full([P, L], NEVER, tl.int64)
    for m in range(branch):
        flat = (p[:, None] * branch + m) * length + at
        child = tl.load(children + flat, mask=inside, other=0)
        strange = used & ((child < 0) | (child > vocab))
        first = tl.full([], states, tl.int64) * length + particles
        worst = tl.minimum(worst, trouble(strange, flat + first, OUT_OF_RANGE, RANGES))
        revealed = used & (token == vocab) & (child >= 0) & (child < vocab)
        tl.store(terms + flat, tl.zeros([P, L], tl.float64), mask=inside)
        opened = opened | revealed.to(tl.int32)
    report(status, worst)
    append(listed, listed_count, p[:, None] * length + at, opened, P * L)


@triton.jit(do_not_specialize=_SCALARS)
def _weigh_narrow(
    listed, listed_count, children, terms, status, logits, state_stride, row_stride, bias, bias_stride, shift,
    shift_state_stride, shift_row_stride, ancestors, states, branch, length, vocab, inverse_temperature, top_k, top_p,
    CUT: tl.constexpr, R: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    count = tl.load(listed_count)
    v = tl.arange(0, B)[None, :]
    worst = tl.full([R], NEVER, tl.int64)
    for start in range(tl.program_id(0).to(tl.int64) * R, count, tl.num_programs(0) * R):
        i = start + tl.arange(0, R)
        here = i < count
        entry = tl.load(listed + i, mask=here, other=0).to(tl.int64)
        p = entry // length
        at = entry - p * length
        state = state_of(ancestors, p, here)
        row = state * length + at
        row_bias = bias
        if bias is not None:
            row_bias = bias + at[:, None] * bias_stride + v
        inside = here[:, None] & (v < vocab)
        row_logits = logits + state[:, None] * state_stride + at[:, None] * row_stride + v
        row_shift = shift + state[:, None] * shift_state_stride + at[:, None] * shift_row_stride + v
        y, most, code = read_rows(row_logits, row_bias, None, inside, inverse_temperature, top_k, top_p, CUT)
        shifted, shifted_most, shifted_code = shift_rows(y, row_shift)
        shifted_code = tl.where(code == OK, shifted_code, OK)
        worst = tl.minimum(worst, trouble(here & (code != OK), row * 2, code, ROWS))
        worst = tl.minimum(worst, trouble(here & (shifted_code != OK), row * 2 + 1, shifted_code, ROWS))
        change = _change(*_sums(y, most), *_sums(shifted, shifted_most))
        for m in range(branch):
            flat = (p * branch + m) * length + at
            token = tl.load(children + flat, mask=here, other=-1)
            revealed = here & (token >= 0) & (token < vocab)
            chosen = v == token[:, None]
            before = tl.sum(tl.where(chosen, y, 0.0), 1)
            after = tl.sum(tl.where(chosen, shifted, 0.0), 1)
            drawn = (before >= -MAX_LOG_WEIGHT) & (after >= -MAX_LOG_WEIGHT)
            impossible = revealed & (drawn == 0)
            index = flat + tl.full([], states, tl.int64) * length * 2
            worst = tl.minimum(worst, trouble(impossible, index, DEGENERATE, ROWS))
            gain = tl.where(drawn, after, 0.0).to(tl.float64) - tl.where(drawn, before, 0.0).to(tl.float64)
            tl.store(terms + flat, change - gain, mask=revealed)
    report(status, worst)


@triton.jit
def _sums(y, most):
    _, exponent, total = weigh(y, most)
    return exponent, total


@triton.jit
def _change(exponent, total, shifted_exponent, shifted_total):
    """Return the logarithm of the ratio of two totals at exponents of their own, the second over the first."""
    logs = log_fixed(tl.maximum(shifted_total, 1).to(tl.float64)) - log_fixed(tl.maximum(total, 1).to(tl.float64))
    return (shifted_exponent - exponent).to(tl.float64) * LN2 + logs


@triton.jit(do_not_specialize=_SCALARS)
def _weigh_wide(
    listed, listed_count, children, terms, status, logits, state_stride, row_stride, bias, bias_stride, shift,
    shift_state_stride, shift_row_stride, ancestors, states, branch, length, vocab, headroom, inverse_temperature, top_k,
    top_p, CUT: tl.constexpr, N: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    count = tl.load(listed_count)
    worst = tl.full([], NEVER, tl.int64)
    for i in range(tl.program_id(0).to(tl.int64), count, tl.num_programs(0)):
        entry = tl.load(listed + i).to(tl.int64)
        p = entry // length
        at = entry - p * length
        state = state_of(ancestors, p, True)
        row = state * length + at
        row_bias = bias
        if bias is not None:
            row_bias = bias + at * bias_stride
        row_logits = logits + state * state_stride + at * row_stride
        row_shift = shift + state * shift_state_stride + at * shift_row_stride
        least = -MAX_LOG_WEIGHT
        if CUT:
            least = wide_threshold(row_logits, row_bias, vocab, inverse_temperature, headroom, top_k, top_p, N, C)
        exponents, sums, _, code = wide_blocks(row_logits, row_bias, None, vocab, inverse_temperature, least, N, C)
        _, _, total, exponent = block_shares(exponents, sums, headroom)
        exponents, sums, _, shifted_code = wide_blocks(
            row_logits, row_bias, row_shift, vocab, inverse_temperature, least, N, C
        )
        _, _, shifted_total, shifted_exponent = block_shares(exponents, sums, headroom)
        shifted_code = tl.where(code == OK, shifted_code, OK)
        worst = tl.minimum(worst, trouble(code != OK, row * 2, code, ROWS))
        worst = tl.minimum(worst, trouble(shifted_code != OK, row * 2 + 1, shifted_code, ROWS))
        change = _change(exponent, total, shifted_exponent, shifted_total)
        for m in range(branch):
            flat = (p * branch + m) * length + at
            token = tl.load(children + flat)
            if (token >= 0) & (token < vocab):
                token_bias = row_bias
                if row_bias is not None:
                    token_bias = row_bias + token
                before = scale_logits(row_logits + token, token_bias, True, inverse_temperature)
                after = before + tl.load(row_shift + token)
                drawn = (before >= least) & (before >= -MAX_LOG_WEIGHT) & (after >= -MAX_LOG_WEIGHT)
                index = flat + tl.full([], states, tl.int64) * length * 2
                worst = tl.minimum(worst, trouble(drawn == 0, index, DEGENERATE, ROWS))
                gain = tl.where(drawn, after, 0.0).to(tl.float64) - tl.where(drawn, before, 0.0).to(tl.float64)
                tl.store(terms + flat, change - gain)
    tl.atomic_min(status, worst, mask=worst < NEVER)


@triton.jit
def _add_terms(terms, ratios, count, length, R: tl.constexpr):
    child = tl.program_id(0).to(tl.int64) * R + tl.arange(0, R)
    total = tl.zeros([R], tl.float64)
    for i in range(length):
        total = total + tl.load(terms + child * length + i, mask=child < count, other=0.0)
    tl.store(ratios + child, total, mask=child < count)


def masked_log_ratio(
    tokens: Tensor,
    children: Tensor,
    logits: Tensor,
    shift: Tensor,
    ratios: Tensor,
    inverse_temperature: float,
    top_k: int,
    top_p: float,
    bias: Tensor | None,
    ancestors: Tensor | None,
    lengths: Tensor | None,
    status: Tensor,
) -> None:
    """Write ``ratios`` ``[P, M]``; arguments as in `fastguide.ops._native.masked_log_ratio`."""
    states, length, vocab = logits.shape
    particles, branch, _ = children.shape
    device = tokens.device
    if ratios.numel() == 0:
        return
    if length == 0:
        ratios.zero_()
        return
    per_group = particles // (1 if lengths is None else len(lengths))
    entries = particles * length
    listed = torch.empty(entries, dtype=torch.int32 if entries < 2**31 else torch.int64, device=device)
    listed_count = torch.zeros(1, dtype=torch.int64, device=device)
    terms = torch.empty((particles, branch, length), dtype=torch.float64, device=device)
    tile = position_tile(config("log_ratio._list_revealed", entries, device), length)
    _list_revealed[(_launch.cdiv(particles, tile["P"]), _launch.cdiv(length, tile["L"]))](
        tokens, children, terms, listed, listed_count, status, ancestors, lengths, states, particles, per_group, branch,
        length, vocab, **tile,
    )  # fmt: skip
    share = 0 if top_p == 1 else share_word(top_p)
    kept = top_k if top_k < vocab else 0
    bias_stride = 0 if bias is None or bias.dim() == 1 else vocab
    given = (
        listed, listed_count, children, terms, status, logits, *logits.stride()[:2], bias, bias_stride, shift,
        *shift.stride()[:2], ancestors, states, branch, length, vocab,
    )  # fmt: skip
    cut, modes = (inverse_temperature, kept, share), {"CUT": kept > 0 or share != 0, **_launch.EXACT}
    if vocab <= _BLOCK:
        narrow = narrow_tile(config("log_ratio._weigh_narrow", entries, device), vocab)
        grid = programs(_launch.cdiv(entries, narrow["R"]), device)
        _weigh_narrow[(grid,)](*given, *cut, **modes, **narrow)
    else:
        wide = wide_tile(config("log_ratio._weigh_wide", entries, device), vocab)
        _weigh_wide[(programs(entries, device),)](*given, headroom(vocab), *cut, **modes, **wide)
    rows, warps = config("log_ratio._add_terms", particles * branch, device)
    _add_terms[(_launch.cdiv(particles * branch, rows),)](
        terms, ratios, particles * branch, length, R=rows, num_warps=warps, **_launch.EXACT
    )


def _variants() -> list[_launch.Variant]:
    def rows(kernel: Any, **types: str) -> list[_launch.Variant]:
        def make(c: Config) -> _launch.Variant:
            return variant(kernel, {"R": c.tile}, c.warps, "", **types)

        return variants(kernel, make)

    found = [
        *rows(_gaussian, children="*fp32"),
        *variants_of(_list_revealed, partial(position_tile, length=64), {}),
        *rows(_add_terms),
    ]
    for cut, label in ((False, ""), (True, ", cut")):
        for vocab in (22, 512):
            found += variants_of(_weigh_narrow, partial(narrow_tile, vocab=vocab), {"CUT": cut}, f"V = {vocab}{label}")
        found += variants_of(_weigh_wide, partial(wide_tile, vocab=32_000), {"CUT": cut}, f"V = 32,000{label}")
    return found


VARIANTS = _variants()
