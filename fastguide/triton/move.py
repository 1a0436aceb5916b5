"""``move`` in Triton: a check of the ancestors, then one launch a tensor, of programs that copy tiles of rows by words.

Rows are copied as integers of up to 8 bytes, so dtypes play no part. Nothing is copied once the check has lowered the status;
in place only rows without offspring are written, from rows that keep their place, so programs do not meet.
"""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from fastguide.triton._launch import EXACT, INVALID_VALUE, NEVER, OUT_OF_RANGE, Variant, cdiv, power_of_two, words_of
from fastguide.triton.tuning import Config, config, variants

_INVALID_VALUE = tl.constexpr(INVALID_VALUE)
_OUT_OF_RANGE = tl.constexpr(OUT_OF_RANGE)
_NEVER = tl.constexpr(NEVER)


@triton.jit
def check(ancestors, status, total, draws, rows, IN_PLACE: tl.constexpr, TILE: tl.constexpr):
    """One program a tile of all ancestors: the first out of range and, in place, the first whose row does not stay."""
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = at < total
    ancestor = tl.load(ancestors + at, mask=inside, other=0).to(tl.int64)
    outside = inside & ((ancestor < 0) | (ancestor >= rows))
    tl.atomic_min(status + _OUT_OF_RANGE, tl.min(tl.where(outside, at, _NEVER)), sem="relaxed")
    if IN_PLACE:
        of_ancestor = at // draws * draws + ancestor
        kept = tl.load(ancestors + of_ancestor, mask=inside & (outside == 0), other=0).to(tl.int64) == ancestor
        displaced = inside & (outside == 0) & (kept == 0)
        tl.atomic_min(status + _INVALID_VALUE, tl.min(tl.where(displaced, at, _NEVER)), sem="relaxed")


@triton.jit
def move_rows(
    source, target, ancestors, status, total, draws, rows, words, IN_PLACE: tl.constexpr, ROWS: tl.constexpr,
    WORDS: tl.constexpr,
):  # fmt: skip
    """One program ``ROWS`` rows of the result by ``WORDS`` words of each."""
    tiles = tl.cdiv(words, WORDS)
    program = tl.program_id(0).to(tl.int64)
    at = program // tiles * ROWS + tl.arange(0, ROWS)
    word = program % tiles * WORDS + tl.arange(0, WORDS)[None, :]
    fine = (tl.load(status + _OUT_OF_RANGE) == _NEVER) & (tl.load(status + _INVALID_VALUE) == _NEVER)
    inside = at < tl.where(fine, total, 0)
    ancestor = tl.load(ancestors + at, mask=inside, other=0).to(tl.int64)
    if IN_PLACE:
        inside = inside & (ancestor != at % draws)
    row = at // draws * rows + ancestor
    mask = inside[:, None] & (word < words)
    x = tl.load(source + row[:, None] * words + word, mask=mask)
    tl.store(target + at[:, None] * words + word, x, mask=mask)


def move(
    sources: Sequence[Tensor], targets: Sequence[Tensor], ancestors: Tensor, rows: int, in_place: bool, status: Tensor
) -> None:
    """Gather rows of contiguous tensors; see ``csrc/cpu/move.h``. ``ancestors`` is ``[groups, draws]`` int32 or int64.

    The status gets the first ancestor out of range, or (invalid value) in place the first whose row does not keep its
    place; then nothing is written.
    """
    total, draws = ancestors.numel(), ancestors.shape[1]
    if total == 0:
        return
    tile, warps = config("move.check", total, ancestors.device)
    check[(cdiv(total, tile),)](
        ancestors, status, total, draws, rows, IN_PLACE=in_place, TILE=tile, num_warps=warps, **EXACT
    )
    tile, warps = config("move.move_rows", total, ancestors.device)
    for source, target in zip(sources, targets, strict=True):
        if target.numel() == 0:
            continue
        words, (read, written) = words_of(len(source), source, target)
        wide = min(power_of_two(words), tile)
        grid = (cdiv(total, tile // wide) * cdiv(words, wide),)
        move_rows[grid](
            read, written, ancestors, status, total, draws, rows, words, IN_PLACE=in_place, ROWS=tile // wide,
            WORDS=wide, num_warps=warps, **EXACT,
        )  # fmt: skip


def _check_variant(c: Config) -> Variant:
    return Variant(check, "*i32 *i64 i32 i32 i32", {"IN_PLACE": True, "TILE": c.tile}, c.warps)


def _move_variants(in_place: bool, words: int, label: str) -> list[Variant]:
    def variant(c: Config) -> Variant:
        constants = {"IN_PLACE": in_place, "ROWS": c.tile // words, "WORDS": words}
        return Variant(move_rows, "*i64 *i64 *i32 *i64 i32 i32 i32 i32", constants, c.warps, label)

    return variants(move_rows, variant)


VARIANTS = [
    *variants(check, _check_variant),
    *_move_variants(False, 128, "rows of 1 KiB"),
    *_move_variants(True, 128, "in place, rows of 1 KiB"),
    *_move_variants(False, 1, "rows of 8 bytes"),
]
