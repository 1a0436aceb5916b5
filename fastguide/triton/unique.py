"""``unique`` in Triton: rows claim slots of a hash table, the lowest row of a slot represents it.

A row is hashed to 64 bits, and walks from there over the slots of a table half empty: it claims an empty one by
compare-and-swap, or finds that the owner's bytes are its own, or goes on. Which of equal rows owns a slot depends on the order
of programs, the lowest of them does not. No program waits for another.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastguide.triton._launch import EXACT, Variant, cdiv, power_of_two, words_of
from fastguide.triton.tuning import Config, config, variants

_EMPTY = tl.constexpr(-1)
_ROWS = 64
"""Rows of one program, at most, where it reads them whole."""
_WORDS = 64
"""Words of a row that it reads at once, at most."""


@triton.jit
def mix(x):
    """Return uint64 ``x`` with its bits well mixed, one to one: the last steps of MurmurHash3 (Appleby)."""
    x = (x ^ (x >> 33)) * 0xFF51AFD7ED558CCD
    x = (x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53
    return x ^ (x >> 33)


@triton.jit
def hash_rows(rows, hashes, count, words, BITS: tl.constexpr, ROWS: tl.constexpr, WORDS: tl.constexpr):
    """One program ``ROWS`` rows: a hash of ``BITS`` bits of each, a sum over its words in any order."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    total = tl.zeros((ROWS,), tl.uint64)
    for start in range(0, words, WORDS):
        at = (start + tl.arange(0, WORDS))[None, :]
        inside = (row[:, None] < count) & (at < words)
        word = tl.load(rows + row[:, None] * words + at, mask=inside, other=0).to(tl.uint64)
        total += tl.sum(tl.where(inside, mix(word + mix((at + 1).to(tl.uint64))), 0), 1)
    tl.store(hashes + row, (mix(total) >> (64 - BITS)).to(tl.int64), mask=row < count)


@triton.jit
def claim(rows, hashes, table, firsts, slots, count, words, last_slot, ROWS: tl.constexpr, WORDS: tl.constexpr):
    """One program ``ROWS`` rows: the slot of each, and the lowest row of each slot."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int32)
    start_of_row = row.to(tl.int64)[:, None] * words
    own = tl.load(hashes + row, mask=row < count, other=0)
    slot = (own & last_slot).to(tl.int32)
    looking = row < count
    while tl.max(looking.to(tl.int32)) > 0:
        # Rows that have their slot compare with what no slot holds, and change nothing.
        seen = tl.atomic_cas(table + slot, tl.where(looking, _EMPTY, _EMPTY - 1), row, sem="relaxed")
        owner = tl.where(seen == _EMPTY, row, seen)
        alike = looking & (tl.load(hashes + owner, mask=looking, other=0) == own)
        differ = (alike == 0).to(tl.int32)
        start_of_owner = owner.to(tl.int64)[:, None] * words
        for start in range(0, words, WORDS):
            at = (start + tl.arange(0, WORDS))[None, :]
            compared = (alike & (owner != row))[:, None] & (at < words)
            mine = tl.load(rows + start_of_row + at, mask=compared, other=0)
            theirs = tl.load(rows + start_of_owner + at, mask=compared, other=0)
            differ = tl.maximum(differ, tl.max((mine != theirs).to(tl.int32), 1))
        found = looking & (differ == 0)
        tl.atomic_min(firsts + slot, row, mask=found, sem="relaxed")
        tl.store(slots + row, slot, mask=found)
        looking = looking & (found == 0)
        slot = tl.where(looking, (slot + 1) & last_slot, slot)


@triton.jit
def mark(slots, firsts, own_first, is_first, count, TILE: tl.constexpr):
    """One program a tile of rows: the first row that each equals, and whether that is itself."""
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = row < count
    first = tl.load(firsts + tl.load(slots + row, mask=inside, other=0), mask=inside, other=0)
    tl.store(own_first + row, first, mask=inside)
    tl.store(is_first + row, (first == row).to(tl.int32), mask=inside)


@triton.jit
def name(own_first, numbers, representatives, inverse, counts, distinct, count, TILE: tl.constexpr):
    """One program a tile of rows: ``numbers[row]`` firsts are at or before a row, so a first's own number is one less."""
    row = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = row < count
    first = tl.load(own_first + row, mask=inside, other=0)
    number = tl.load(numbers + first, mask=inside, other=1) - 1
    tl.store(inverse + row, number.to(tl.int64), mask=inside)
    tl.store(representatives + number, row.to(tl.int64), mask=inside & (first == row))
    tl.atomic_add(counts + number, tl.full((TILE,), 1, tl.int64), mask=inside, sem="relaxed")
    tl.store(
        distinct + row * 0, tl.load(numbers + row, mask=row == count - 1, other=0).to(tl.int64), mask=row == count - 1
    )


def unique(
    rows: Tensor, representatives: Tensor, inverse: Tensor, counts: Tensor, distinct: Tensor, hash_bits: int = 64
) -> None:
    """Name equal rows of a contiguous ``[N, ...]``, not empty; see ``csrc/cpu/unique.h``.

    Args:
        representatives, inverse, counts: ``[N]`` int64, written; the first and the last only as far as there are distinct rows.
        distinct: ``[1]`` int64, how many rows are distinct.
        hash_bits: fewer bits weaken the hash, which may cost time but not change a result.
    """
    count, device = len(rows), rows.device
    if count > 2**30:
        raise ValueError(f"rows: {count} rows are more than the 2^30 that can be told apart on a GPU; split them")
    words, (flat,) = words_of(count, rows)

    def fresh(size: int, dtype: torch.dtype = torch.int32) -> Tensor:
        return torch.empty(size, dtype=dtype, device=device)

    size = power_of_two(2 * count)
    table, firsts = torch.full((size,), _EMPTY.value, dtype=torch.int32, device=device), fresh(size).fill_(2**31 - 1)
    hashes, slots, own_first, is_first = fresh(count, torch.int64), fresh(count), fresh(count), fresh(count)
    tile = tile_of(config("unique.hash_rows", count, device), words)
    grid = (cdiv(count, tile["ROWS"]),)
    hash_rows[grid](flat, hashes, count, words, BITS=hash_bits, **tile, **EXACT)
    tile = tile_of(config("unique.claim", count, device), words)
    grid = (cdiv(count, tile["ROWS"]),)
    claim[grid](flat, hashes, table, firsts, slots, count, words, size - 1, **tile, **EXACT)
    wide, warps = config("unique.mark", count, device)
    mark[(cdiv(count, wide),)](slots, firsts, own_first, is_first, count, TILE=wide, num_warps=warps, **EXACT)
    numbers = is_first.cumsum(0, dtype=torch.int32)
    wide, warps = config("unique.name", count, device)
    name[(cdiv(count, wide),)](
        own_first,
        numbers,
        representatives,
        inverse,
        counts.zero_(),
        distinct,
        count,
        TILE=wide,
        num_warps=warps,
        **EXACT,
    )


def tile_of(chosen: Config, words: int) -> dict[str, int]:
    """Return the rows and words of one program, and its warps, for rows of ``words``."""
    wide = min(power_of_two(words), _WORDS)
    return {"ROWS": min(chosen.tile // wide, _ROWS), "WORDS": wide, "num_warps": chosen.warps}


def _rows_variants(kernel: Any, types: str, words: int, label: str, **constants: int) -> list[Variant]:
    def variant(c: Config) -> Variant:
        tile = tile_of(c, words)
        warps = tile.pop("num_warps")
        return Variant(kernel, types, {**constants, **tile}, warps, label)

    return variants(kernel, variant)


def _flat_variants(kernel: Any, types: str) -> list[Variant]:
    return variants(kernel, lambda c: Variant(kernel, types, {"TILE": c.tile}, c.warps))


_CLAIM = "*i64 *i64 *i32 *i32 *i32 i32 i32 i32"
VARIANTS = [
    *_rows_variants(hash_rows, "*i64 *i64 i32 i32", 64, "", BITS=64),
    *_rows_variants(claim, _CLAIM, 64, "long rows"),
    *_rows_variants(claim, _CLAIM, 8, "short rows"),
    *_flat_variants(mark, "*i32 *i32 *i32 *i32 i32"),
    *_flat_variants(name, "*i32 *i32 *i64 *i64 *i64 *i64 i32"),
]
