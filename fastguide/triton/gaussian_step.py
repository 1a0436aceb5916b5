"""``gaussian_step`` on the GPU: one pass, the noise made in registers and the rows of a parent read once for its children."""

from __future__ import annotations

import math
from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from fastguide.triton import _launch
from fastguide.triton._particles import coefficient, number_of, seed_of, state_of, variants_of
from fastguide.triton._status import RANGES, report, trouble
from fastguide.triton.numerics.normal import normal_pair
from fastguide.triton.numerics.philox import NOISE, counter_word, philox
from fastguide.triton.numerics.tokens import OUT_OF_RANGE
from fastguide.triton.tuning import Config, config


@triton.jit
def normals(key, slot, first, word, Q: tl.constexpr):
    """Return float32 normals ``[P, 4 Q]`` of int64 keys and slots ``[P]``, of elements from block ``first`` of four on."""
    block = first + tl.arange(0, Q)[None, :]
    w0, w1, w2, w3 = philox(key[:, None], block * 0, slot[:, None], block, word)
    z0, z1 = normal_pair(w0, w1)
    z2, z3 = normal_pair(w2, w3)
    return tl.reshape(tl.join(tl.join(z0, z2), tl.join(z1, z3)), [key.shape[0], 4 * Q])


@triton.jit(do_not_specialize=["seed", "step"])
def _combine(
    x, x_stride, prediction, prediction_stride, shift, shift_stride, children, status, coefficients, number_x,
    number_prediction, number_shift, number_sigma, groups, ancestors, slots, seeds, seed, step, states, particles,
    per_group, branch, size, most_slot, P: tl.constexpr, D: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0).to(tl.int64) * P + tl.arange(0, P)
    first = tl.program_id(1).to(tl.int64) * D
    d = first + tl.arange(0, D)[None, :]
    present = p < particles
    group = p // per_group
    state = state_of(ancestors, p, present)
    number = number_of(slots, p, per_group, present)
    astray = present & ((state < 0) | (state >= states))
    late = present & ((number < 0) | (number > most_slot))
    if tl.program_id(1) == 0:
        report(status, trouble(astray, p, OUT_OF_RANGE, RANGES))
        report(status, trouble(late, p + particles, OUT_OF_RANGE, RANGES))
    present = present & (astray == 0) & (late == 0)
    inside = present[:, None] & (d < size)

    of_x = coefficient(coefficients, number_x, 0, groups, group, present)
    of_prediction = coefficient(coefficients, number_prediction, 1, groups, group, present)
    y = tl.load(x + state[:, None] * x_stride + d, mask=inside, other=0.0) * of_x
    drift = tl.load(prediction + state[:, None] * prediction_stride + d, mask=inside, other=0.0).to(tl.float32)
    y = y + drift * of_prediction
    if shift is not None:
        of_shift = coefficient(coefficients, number_shift, 2, groups, group, present)
        pull = tl.load(shift + state[:, None] * shift_stride + d, mask=inside, other=0.0).to(tl.float32)
        y = y + pull * of_shift
    sigma = coefficient(coefficients, number_sigma, 3, groups, group, present)
    key = seed_of(seeds, seed, group, present)
    word = counter_word(step, NOISE)
    for m in range(branch):
        z = normals(key, number * branch + m, first // 4, word, D // 4)
        child = tl.where(sigma == 0, y, y + z * sigma)
        tl.store(children + (p * branch + m)[:, None] * size + d, child, mask=inside)


def gaussian_step(
    x: Tensor,
    prediction: Tensor,
    shift: Tensor | None,
    children: Tensor,
    coefficients: Tensor | None,
    numbers: Sequence[float | Tensor],
    ancestors: Tensor | None,
    seeds: Tensor | None,
    seed: int,
    step: int | Tensor,
    slots: Tensor | None,
    status: Tensor,
) -> None:
    """Write ``children`` ``[P, M, ...]``; arguments as in `fastguide.ops._native.gaussian_step`.

    ``step`` may be an int64 tensor of one element, and numbers floating-point ones. Children of a particle whose ancestor or
    slot is out of range are not written, those of the others are.
    """
    particles, branch = children.shape[:2]
    if children.numel() == 0:
        return
    groups, size = 1 if seeds is None else len(seeds), math.prod(x.shape[1:])
    tile = tile_of(config("gaussian_step._combine", particles * size, x.device), particles, size)
    _combine[(_launch.cdiv(particles, tile["P"]), _launch.cdiv(size, tile["D"]))](
        x, x.stride(0), prediction, prediction.stride(0), shift, 0 if shift is None else shift.stride(0), children, status,
        coefficients, *numbers, groups, ancestors, slots, seeds, seed, step, x.shape[0], particles, particles // groups,
        branch, size, (2**32 - branch) // branch, **tile, **_launch.EXACT,
    )  # fmt: skip


def tile_of(chosen: Config, particles: int, size: int) -> dict[str, int]:
    """Return the particles P and numbers D of a program."""
    numbers = max(4, _launch.power_of_two(min(size, chosen.tile)))
    held = max(1, min(chosen.tile // numbers, _launch.power_of_two(particles)))
    return {"P": held, "D": numbers, "num_warps": chosen.warps}


def _variants(label: str, size: int, constants: dict[str, None], **types: str) -> list[_launch.Variant]:
    return variants_of(_combine, lambda c: tile_of(c, 1 << 20, size), constants, label, children="*fp32", **types)


_PLAIN = {"coefficients": None, "shift": None, "ancestors": None, "slots": None, "seeds": None}
_READ = dict.fromkeys(("number_x", "number_prediction", "number_shift", "number_sigma"), "*fp64")
VARIANTS = [
    *_variants("", 3072, _PLAIN, seed="i64"),
    *_variants("64 numbers", 64, _PLAIN, seed="i64"),
    *_variants("numbers of the device", 3072, _PLAIN, seed="i64", step="*i64", **_READ),
    *_variants("every option, bfloat16", 3072, {}, prediction="*bf16", shift="*bf16"),
]
