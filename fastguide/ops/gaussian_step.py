"""One reverse step of a Gaussian diffusion: gather the parents, combine them, add normal noise made in the kernel.

Every sampler whose step is linear in the state and the network's output (DDPM, DDIM with noise, Euler-Maruyama, the
flow samplers with added noise) is one call with its own coefficients. The noise is a function of seed, step, slot and
element alone, so the same seed gives the same children on every backend, thread count and micro-batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastguide import config
from fastguide.deferred import deferring
from fastguide.ops import _arrays, _checks, _gaussian, _library, _masked, _native, _triton
from fastguide.ops._gaussian import Coefficient
from fastguide.reference import gaussian_step as _reference
from fastguide.reference.philox import expand_seed


def gaussian_step(
    x: Tensor,
    prediction: Tensor,
    *,
    x_coefficient: Coefficient,
    prediction_coefficient: Coefficient,
    sigma: Coefficient,
    shift: Tensor | None = None,
    shift_coefficient: Coefficient = 1.0,
    ancestors: Tensor | None = None,
    branch: int = 1,
    seed: int | Tensor = 0,
    step: int | Tensor = 0,
    slots: Tensor | None = None,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Propose ``branch`` children of every particle.

    ``child = x_coefficient * x[a] + prediction_coefficient * prediction[a] + shift_coefficient * shift[a] + sigma * z``,
    computed in float32 from left to right; ``z`` is standard normal, at most 7.447 in magnitude (exceeded with
    probability 1e-13). Draws are keyed by the seed of the group, the step, the slot ``n * branch + m`` of the child in
    its group and the element, hence any subset of particles given with its ``slots`` (and one seed each, ``[P]``)
    repeats its part of the whole. Where sigma is 0 nothing is drawn or added. NaN and infinities propagate into the
    elements that they enter. The result carries no gradient.

    Args:
        x: ``[U, ...]`` float32, distinct states. Rows that are not contiguous are copied.
        prediction: the shape of ``x``, float32, float16 or bfloat16 (converted exactly): the network's output.
        x_coefficient: a number or ``[G]``, one a group, or a tensor of one for all groups; rounded to float32, as are all
            coefficients. Those of tensors are read by the kernels themselves.
        prediction_coefficient: a number or ``[G]``.
        sigma: a number or ``[G]``, at least 0: the standard deviation of the noise.
        shift: the shape of ``x``, float32, float16 or bfloat16: a shift of the mean, such as a gradient of the reward.
        shift_coefficient: a number or ``[G]``.
        ancestors: ``[P]`` int64 or int32, the row of ``x`` that each particle continues; default ``0..U-1``.
        branch: children of a particle, M.
        seed: an int or int64 tensor of no dimension (one group), or ``[G]`` int64, one a group; groups are contiguous and
            of equal size, G divides P.
        step: the number of the step, keying its draws; or an int64 tensor of it on the device, which the kernels of
            ``"triton"`` read themselves, so that a captured graph draws anew at each replay.
        slots: ``[P]`` int64 or int32, the number of each particle within its group; default ``0..P/G-1``.
        out: ``[P, M, ...]`` float32, contiguous and apart from the inputs, to write into and return.
        backend: ``"cpu"``, ``"triton"`` or ``"torch"``; default as :func:`fastguide.config.choose_backend` says.

    Returns:
        ``[P, M, ...]`` float32.

    Raises:
        ValueError: shapes or settings do not fit; a coefficient is not finite, or sigma is negative.
        IndexError: an ancestor or slot is out of range; then ``"triton"`` has written the children of other particles
            into ``out``, and the other backends nothing.
        TypeError: a dtype is not one of those above.
    """
    if type(x) is not Tensor and _arrays.is_foreign(x):
        return _arrays.in_torch(gaussian_step, x, locals())
    branch = _checks.count("branch", branch)
    steps, at = _checks.step_or_tensor(step, x)
    _gaussian.check_rows("x", x, None)
    _gaussian.check_rows("prediction", prediction, x)
    if shift is not None:
        _gaussian.check_rows("shift", shift, x)
    ancestors = _masked.check_indices("ancestors", ancestors, None, x)
    particles = x.shape[0] if ancestors is None else ancestors.shape[0]
    slots = _masked.check_indices("slots", slots, particles, x)
    seeds, number = _masked.check_seed(seed, particles, x)
    coefficients, numbers = _gaussian.check_coefficients(
        (x_coefficient, prediction_coefficient, shift_coefficient, sigma), 1 if seeds is None else len(seeds), x
    )
    if out is not None:
        _checks.output("out", out, (particles, branch, *x.shape[1:]), torch.float32, x)
    given = (
        x, prediction, shift, coefficients, numbers, ancestors, branch, seeds, number, steps, at, slots, backend,
    )  # fmt: skip
    if torch.compiler.is_compiling():
        children: Tensor = _op(*given)
        return children if out is None else out.copy_(children)
    return _launch(*given, out=out)


def _launch(
    x: Tensor,
    prediction: Tensor,
    shift: Tensor | None,
    coefficients: Tensor | None,
    numbers: list[Any],
    ancestors: Tensor | None,
    branch: int,
    seeds: Tensor | None,
    seed: int,
    steps: Tensor | None,
    step: int,
    slots: Tensor | None,
    backend: str | None,
    out: Tensor | None = None,
) -> Tensor:
    if not deferring():
        _gaussian.refuse_coefficients(coefficients)
    if out is not None:
        single = (number for number in numbers if isinstance(number, Tensor))
        _checks.apart("out", (out,), (x, prediction, shift, coefficients, ancestors, seeds, slots, steps, *single))
    backend = config.choose_backend(x.device, backend)
    at = _checks.step_for(backend, steps, step)
    numbers = _gaussian.coefficients_for(backend, numbers)
    if backend != "torch":
        children = _empty_children(x, ancestors, branch) if out is None else out
        settings = (
            _gaussian.laid_out(x),
            _gaussian.laid_out(prediction),
            None if shift is None else _gaussian.laid_out(shift),
            children,
            coefficients,
            numbers,
            ancestors,
            seeds,
            seed,
            at,
            slots,
        )
        if backend == "cpu":
            _checks.on_cpu("x", x)
            if out is None:
                _native.advise_huge_pages(children)
            code, index = _native.gaussian_step(*settings)
        else:
            code, index = _triton.run("gaussian_step", x, *settings)
    else:
        children, code, index = _reference.gaussian_step(
            x.detach(),
            prediction.detach(),
            coefficients=x.new_tensor(numbers)[:, None] if coefficients is None else coefficients,
            shift=None if shift is None else shift.detach(),
            ancestors=ancestors,
            branch=branch,
            seeds=expand_seed(seed & 0xFFFFFFFFFFFFFFFF, 1, x.device) if seeds is None else seeds,
            step=at,
            slots=slots,
        )
        if out is not None and code == _native.OK:
            children = out.copy_(children)
    if code != _native.OK:
        _gaussian.raise_status(code, index, x.shape[0], ancestors, slots, children.shape[0], branch)
    return children


def _empty_children(x: Tensor, ancestors: Tensor | None, branch: int) -> Tensor:
    return x.new_empty((x.shape[0] if ancestors is None else ancestors.shape[0], branch, *x.shape[1:]))


def _fake(
    x: Tensor,
    prediction: Tensor,
    shift: Tensor | None,
    coefficients: Tensor | None,
    numbers: list[float],
    ancestors: Tensor | None,
    branch: int,
    seeds: Tensor | None,
    seed: int,
    steps: Tensor | None,
    step: int,
    slots: Tensor | None,
    backend: str | None,
) -> Tensor:
    return _empty_children(x, ancestors, branch)


_op = _library.register(
    "gaussian_step(Tensor x, Tensor prediction, Tensor? shift, Tensor? coefficients, float[] numbers, "
    "Tensor? ancestors, SymInt branch, Tensor? seeds, int seed, Tensor? steps, SymInt step, Tensor? slots, str? backend) "
    "-> Tensor",
    _launch,
    _fake,
)
