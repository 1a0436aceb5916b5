"""Seeds of groups, made on the device."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastguide.triton._launch import EXACT, Variant, cdiv
from fastguide.triton.numerics.philox import expand_seed
from fastguide.triton.tuning import config, variants


@triton.jit(do_not_specialize=["low", "high"])
def _expand_seeds(low, high, seeds, groups, BLOCK: tl.constexpr):
    g = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    seed = (high.to(tl.int64) << 32) | (low.to(tl.int64) & 0xFFFFFFFF)
    tl.store(seeds + g, expand_seed(seed, g), mask=g < groups)


def group_seeds(seeds: Tensor | None, seed: int, groups: int, device: torch.device) -> Tensor:
    """Return ``seeds`` ``[groups]`` int64, contiguous, made from one integer where there are none."""
    if seeds is not None:
        return seeds.contiguous()
    expanded = torch.empty(groups, dtype=torch.int64, device=device)
    low, high = (w - 2**32 if w >= 2**31 else w for w in (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF))
    tile, warps = config("seeds._expand_seeds", groups, device)
    _expand_seeds[(cdiv(groups, tile),)](low, high, expanded, groups, BLOCK=tile, num_warps=warps, **EXACT)
    return expanded


VARIANTS = variants(_expand_seeds, lambda c: Variant(_expand_seeds, "i32 i32 *i64 i32", {"BLOCK": c.tile}, c.warps))
