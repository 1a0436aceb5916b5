"""``gaussian_step`` in plain torch: gather the parents, combine them in float32 from left to right, add the noise."""

from __future__ import annotations

import torch
from torch import Tensor

from fastguide.reference.normal import normals

OK, OUT_OF_RANGE = 0, 3


def check_particles(
    states: int, particles: int, ancestors: Tensor | None, slots: Tensor | None, branch: int
) -> tuple[int, int]:
    """Return a status code and the first offending index, as the kernels do: ancestors first, then slots."""
    for indices, bound, first in ((ancestors, states, 0), (slots, (2**32 - branch) // branch + 1, particles)):
        if indices is None:
            continue
        if bool((bad := (indices < 0) | (indices.long() >= bound)).any()):
            return OUT_OF_RANGE, first + int(bad.nonzero()[0])
    return OK, -1


def per_particle(coefficients: Tensor, particles: int) -> Tensor:
    """Return coefficients ``[4, G]`` or ``[4, 1]`` as ``[4, P, 1, 1]``."""
    return coefficients.repeat_interleave(particles // coefficients.shape[1], 1)[..., None, None]


def gaussian_step(
    x: Tensor,
    prediction: Tensor,
    *,
    coefficients: Tensor,
    shift: Tensor | None,
    ancestors: Tensor | None,
    branch: int,
    seeds: Tensor,
    step: int,
    slots: Tensor | None,
) -> tuple[Tensor, int, int]:
    """Return the children ``[P, M, ...]``, a status code and the first offending index, as the kernel does.

    Arguments as in :func:`fastguide.ops.gaussian_step.gaussian_step`, with ``seeds`` ``[G]`` and float32 coefficients
    ``[4, G]`` or ``[4, 1]``: of ``x``, of the prediction, of the shift, and sigma.
    """
    states, trailing = x.shape[0], x.shape[1:]
    particles = states if ancestors is None else len(ancestors)
    children = x.new_empty((particles, branch, *trailing))
    code, index = check_particles(states, particles, ancestors, slots, branch)
    if code != OK or children.numel() == 0:
        return children, code, index
    parents = torch.arange(states, device=x.device) if ancestors is None else ancestors.long()
    of_x, of_prediction, of_shift, sigma = per_particle(coefficients, particles)

    def gather(rows: Tensor) -> Tensor:  # [P, 1, D] float32
        return rows.reshape(states, -1)[parents][:, None].float()

    y = gather(x) * of_x + gather(prediction) * of_prediction
    if shift is not None:
        y = y + gather(shift) * of_shift
    per_group = particles // len(seeds)
    if slots is None:
        slots = torch.arange(per_group, device=x.device).repeat(len(seeds))
    child_slots = slots.long()[:, None] * branch + torch.arange(branch, device=x.device)
    noise = normals(seeds.repeat_interleave(per_group)[:, None], child_slots, y.shape[-1], step)
    y = torch.where(sigma == 0, y, y + noise * sigma)
    return y.view_as(children), OK, -1
