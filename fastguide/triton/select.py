"""``select`` in Triton, in two regimes: rows of one block, several to a program; and rows of many blocks (`_blocks`)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastguide.triton import _blocks
from fastguide.triton._blocks import Workspace, refuse
from fastguide.triton._launch import DEGENERATE, EXACT, NEVER, Variant, cdiv, power_of_two
from fastguide.triton._rows import ARGMAX, MULTINOMIAL, RESIDUAL, draw_rows, fold_rows
from fastguide.triton.numerics.selection import BLOCK, gumbel, select_word, usable
from fastguide.triton.seeds import group_seeds
from fastguide.triton.tuning import Config, config, variants

_DEGENERATE = tl.constexpr(DEGENERATE)
_NEVER = tl.constexpr(NEVER)
_GUMBEL_TOPK = 6


def held(rule: int, most: int) -> bool:
    """Say whether one program can hold rows of up to ``most`` items and draws: residual needs more registers an item."""
    return most <= (1024 if rule == RESIDUAL.value else BLOCK.value)


def rows_of(width: int, rows: int, chosen: Config) -> int:
    """Return how many rows of ``width`` items, a power of two, one program takes: as a tile holds, at least one."""
    return max(1, min(chosen.tile // width, power_of_two(rows)))


def warps_of(width: int, chosen: Config) -> int:
    """Return the warps of a program on rows of ``width`` items: as many items a thread as in a tile, 16 at most.

    Of 32 warps a thread has 64 registers, too few.
    """
    return min(16, chosen.warps * max(1, width // chosen.tile))


@triton.jit(do_not_specialize=["step"])
def select_rows(
    log_weights, seeds, step, ancestors, log_mean, ess, running, ends, status, rows, parents, m, k, bits,
    RULE: tl.constexpr, SLOTS: tl.constexpr, ROWS: tl.constexpr, WIDTH: tl.constexpr, DRAW_WIDTH: tl.constexpr,
):  # fmt: skip
    """One program ``ROWS`` rows of at most one block."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    item = tl.arange(0, WIDTH)[None, :]
    inside = (row < rows) & (item < m)
    x = tl.load(log_weights + row * m + item, mask=inside, other=float("-inf"))
    bad = inside & ((x <= 1e9) == 0)
    refuse(bad, row * m + item, status)
    points, total, largest, mean, size = fold_rows(usable(x), m)
    seed = tl.load(seeds + row // parents, mask=row < rows, other=0)
    ancestor = draw_rows(
        points, total, largest, row, rows, m, k, bits, seed, row % parents, step, running, ends, RULE, SLOTS, DRAW_WIDTH
    )
    slot = tl.arange(0, DRAW_WIDTH)[None, :]
    tl.store(ancestors + row * k + slot, ancestor.to(tl.int32), mask=(row < rows) & (slot < k))
    tl.store(log_mean + row, mean, mask=row < rows)
    tl.store(ess + row, size, mask=row < rows)
    first = tl.min(tl.where((total == 0) & (row < rows), row, _NEVER))
    if first != _NEVER:
        tl.atomic_min(status + _DEGENERATE, first, sem="relaxed")


@triton.jit(do_not_specialize=["step"])
def score(log_weights, seeds, step, scores, total, m, parents, RANDOM: tl.constexpr, TILE: tl.constexpr):
    """One program a tile of all items: their scores in float64, with Gumbel noise or without, ``-inf`` of weight zero."""
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    x = usable(tl.load(log_weights + at, mask=at < total, other=float("-inf")))
    value = x.to(tl.float64)
    if RANDOM:
        row = at // m
        seed = tl.load(seeds + row // parents, mask=at < total, other=0)
        noise = gumbel(select_word(seed, at % m, row % parents, step))
        value = tl.where(x > float("-inf"), value + noise, float("-inf"))
    tl.store(scores + at, value, mask=at < total)


def select(
    log_weights: Tensor,
    k: int,
    rule: int,
    slots: bool,
    seeds: Tensor | None,
    seed: int,
    step: int | Tensor,
    ancestors: Tensor,
    log_mean_weight: Tensor,
    ess: Tensor,
    status: Tensor,
) -> None:
    """Select in each row of contiguous ``[M]``, ``[G, M]`` or ``[G, P, M]``; see ``csrc/cpu/select.h``.

    Args:
        step: a number, or an int64 tensor ``[1]`` on the device.
        status: from `fastguide.triton._launch.new_status`; invalid value with the first refused log-weight, degenerate with
            the first row that has too few items of nonzero weight, everything having been computed.
    """
    shape = log_weights.shape
    groups, parents = (shape[0] if len(shape) > 1 else 1), (shape[1] if len(shape) > 2 else 1)
    x, out = log_weights.reshape(groups * parents, -1), ancestors.reshape(groups * parents, -1)
    log_mean, size = log_mean_weight.reshape(-1), ess.reshape(-1)
    seeds = group_seeds(seeds, seed, groups, x.device)
    m = x.shape[1]
    if rule <= ARGMAX.value and held(rule, max(m, k)):
        _select_rows(x, k, rule, slots, seeds, parents, step, out, log_mean, size, status)
    else:
        ranked = rule > ARGMAX.value
        work = _blocks.fold_rows(x, k, k if ranked else 1, log_mean, size, status)
        if ranked:
            _rank(x, k, rule, slots, seeds, parents, step, out, work)
        else:
            _blocks.launch_fill(_blocks.launch_ends(x, k, rule, seeds, parents, step, work), out, slots, work)


def _select_rows(
    x: Tensor, k: int, rule: int, slots: bool, seeds: Tensor, parents: int, step: int | Tensor, ancestors: Tensor,
    log_mean: Tensor, ess: Tensor, status: Tensor,
) -> None:  # fmt: skip
    rows, m = x.shape
    width, draw_width = power_of_two(m), power_of_two(k)
    widest, chosen = max(width, draw_width), config("select.select_rows", x.numel(), x.device)
    tile_rows = rows_of(widest, rows, chosen)
    counted = rule in (MULTINOMIAL.value, RESIDUAL.value)
    running = torch.empty((rows, m) if counted else 0, dtype=torch.int64, device=x.device)
    ends = torch.empty(rows, m, dtype=torch.int32, device=x.device)
    select_rows[(cdiv(rows, tile_rows),)](
        x, seeds, step, ancestors, log_mean, ess, running, ends, status, rows, parents, m, k, m.bit_length(),
        RULE=rule, SLOTS=slots, ROWS=tile_rows, WIDTH=width, DRAW_WIDTH=draw_width,
        num_warps=warps_of(widest, chosen), **EXACT,
    )  # fmt: skip


def _rank(
    x: Tensor, k: int, rule: int, slots: bool, seeds: Tensor, parents: int, step: int | Tensor, ancestors: Tensor,
    work: Workspace,
) -> None:  # fmt: skip
    """Take the best: scores, a sort of torch's (CUB, on a GPU), the first ``k``."""
    rows, m = x.shape
    scores = torch.empty(rows, m, dtype=torch.float64, device=x.device)
    tile, warps = config("select.score", x.numel(), x.device)
    score[(cdiv(x.numel(), tile),)](
        x, seeds, step, scores, x.numel(), m, parents, RANDOM=rule == _GUMBEL_TOPK, TILE=tile, num_warps=warps, **EXACT
    )
    order = scores.sort(dim=-1, descending=True, stable=True).indices
    _blocks.launch_take(order, ancestors, work)
    if slots:
        counts = torch.zeros_like(work.ends)
        _blocks.launch_counts(ancestors, counts)
        _blocks.launch_fill(counts.cumsum(1, dtype=torch.int32), ancestors, True, work)


_ROWS = "*fp32 *i64 i32 *i32 *fp64 *fp64 *i64 *i32 *i64 i32 i32 i32 i32 i32"


def _rows_variants(rule: int, slots: bool, width: int, draws: int, label: str) -> list[Variant]:
    widest = max(width, draws)

    def variant(c: Config) -> Variant:
        tile = {"ROWS": rows_of(widest, 1 << 20, c), "WIDTH": width, "DRAW_WIDTH": draws}
        return Variant(select_rows, _ROWS, {"RULE": rule, "SLOTS": slots, **tile}, warps_of(widest, c), label)

    return variants(select_rows, variant)


def _score_variant(c: Config) -> Variant:
    return Variant(score, "*fp32 *i64 i32 *fp64 i64 i32 i32", {"RANDOM": True, "TILE": c.tile}, c.warps)


VARIANTS = [
    *_rows_variants(0, False, 8, 1, "systematic, 8 children"),
    *_rows_variants(0, True, 1024, 1024, "systematic, slots, 1,024"),
    *_rows_variants(0, True, 4096, 4096, "systematic, slots, 4,096"),
    *_rows_variants(1, True, 4096, 4096, "stratified, slots, 4,096"),
    *_rows_variants(2, False, 8, 1, "multinomial, 8 children"),
    *_rows_variants(2, True, 4096, 4096, "multinomial, slots, 4,096"),
    *_rows_variants(3, True, 1024, 1024, "residual, slots, 1,024"),
    *_rows_variants(4, False, 4096, 1, "argmax, 4,096"),
    *variants(score, _score_variant),
]
