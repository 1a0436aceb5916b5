"""Gaussian diffusion bound to the groups of a run: first states, given parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastguide import clock, ops
from fastguide.processes.protocol import Constraints, check_frozen, expand_init, refuse

if TYPE_CHECKING:
    from fastguide.processes.gaussian import GaussianProcess


class BoundGaussian:
    """See `fastguide.processes.protocol.Bound`.

    Given parts (``x_init`` with ``frozen``) are put back after every step, noised to its level: the replacement method
    (2011.13456, appendix I.2). What is free is drawn *beside* them, not conditioned on them, so the law is approximate.
    """

    lengths = None
    follows_clock = True

    def __init__(
        self,
        process: GaussianProcess,
        constraints: Constraints,
        groups: int,
        particles: int,
        seeds: Tensor,
        device: torch.device,
    ) -> None:
        refuse(process, constraints, "bias", "lengths")
        self.process, self.particles = process, particles
        process.numbers_on(device)  # before the loop, which shall not wait for them
        self.output_bytes = 4 * math.prod(process.shape) * (2 if process.multistep else 1)
        self.x = self._noise(seeds, groups * particles, process.prior_std, process.steps, device)
        self.given, self.frozen = self._check_given(constraints, groups, particles, device)
        if self.given is not None:
            if self.frozen is None:
                self.x = self.given.expand(self.x.shape).clone()
            else:
                self._replace(self.x[:, None], 0, torch.arange(groups, device=device), seeds, None)

    def _noise(self, seeds: Tensor, count: int, std: float, step: int, device: torch.device) -> Tensor:
        zero = torch.zeros((1, *self.process.shape), device=device)
        rows = torch.zeros(count, dtype=torch.int64, device=device)
        drawn = ops.gaussian_step(
            zero, zero, x_coefficient=0.0, prediction_coefficient=0.0, sigma=std, ancestors=rows, seed=seeds, step=step
        )
        return drawn[:, 0]

    def _check_given(
        self, constraints: Constraints, groups: int, particles: int, device: torch.device
    ) -> tuple[Tensor | None, Tensor | None]:
        shape, rows = self.process.shape, groups * particles
        x_init, frozen = constraints.x_init, constraints.frozen
        if x_init is None:
            if frozen is not None:
                raise ValueError("frozen: give the parts to keep in x_init")
            return None, None
        x_init = expand_init(x_init, groups, particles, len(shape))
        if not isinstance(x_init, Tensor) or x_init.dtype != torch.float32:
            raise TypeError(f"x_init: expected a float32 tensor, got {getattr(x_init, 'dtype', type(x_init).__name__)}")
        if x_init.shape not in (shape, (rows, *shape)):
            raise ValueError(f"x_init: expected shape {list(shape)} or {[rows, *shape]}, got {list(x_init.shape)}")
        if frozen is None:
            return x_init.to(device), None
        check_frozen(frozen, shape)
        return x_init.to(device), frozen.to(device)

    def check(self, output: Tensor, n: int) -> None:
        """Raise unless ``output`` is floating and of the shape of ``n`` states."""
        if output.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise TypeError(
                f"denoiser: expected float32, float16 or bfloat16, got {output.dtype}; return output.float()"
            )
        shape = (n, 2, *self.process.shape) if self.process.multistep else (n, *self.process.shape)
        if output.shape != shape:
            raise ValueError(
                f"denoiser: expected {self.process.prediction} of shape {list(shape)}, got {list(output.shape)}"
            )

    def estimate(self, x: Tensor, output: Tensor, *, step: int, group: Tensor) -> Tensor:
        """Return the mean clean sample given the state (Tweedie)."""
        if self.process.multistep:
            return output[:, 0]
        return self.process.clean(x, output, step)

    def propose(
        self,
        x: Tensor,
        output: Tensor,
        *,
        step: int,
        group: Tensor,
        seed: Tensor,
        ancestors: Tensor,
        branch: int = 1,
        slots: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> Tensor:
        """Draw children ``[P, M, *shape]``; ``shift`` is added to their mean."""
        prediction, coefficients = self._mean(x, output, step)
        a, b, noise = clock.entries(coefficients, step)
        children = ops.gaussian_step(
            x, prediction, x_coefficient=a, prediction_coefficient=b, sigma=noise, shift=shift, ancestors=ancestors,
            branch=branch, seed=seed, step=clock.number(step), slots=slots,
        )  # fmt: skip
        if self.frozen is not None:
            self._replace(children, step + 1, group, seed, slots)
        return children

    def is_whole(self, x: Tensor, *, group: Tensor) -> bool:
        """Whether states are clean samples: any may be one."""
        return True

    def renoise(self, x0: Tensor, *, step: int, seeds: Tensor) -> Tensor:
        """Return clean samples ``[G·N, *shape]`` noised to the level of ``step`` steps: ``alpha_t x0 + sigma_t eps``."""
        process = self.process
        if process.multistep:
            raise ValueError(
                f"process: sampler {process.sampler!r} cannot start in the middle, as its steps read earlier predictions"
            )
        noised = ops.gaussian_step(
            x0, x0, x_coefficient=process.alphas[step], prediction_coefficient=0.0, sigma=process.sigmas_of_states[step],
            seed=seeds, step=2 * process.steps + 2,
        )  # fmt: skip
        if self.frozen is not None:
            self._replace(noised, step, torch.arange(len(seeds), device=x0.device), seeds, None)
        return noised[:, 0]

    def log_ratio(
        self, children: Tensor, x: Tensor, output: Tensor, shift: Tensor, *, step: int, group: Tensor, ancestors: Tensor
    ) -> Tensor:
        """Return ``log p/q`` ``[P, M]``; a step without noise cannot be guided, and its ratio is 0."""
        prediction, coefficients = self._mean(x, output, step)
        if coefficients[step][2] == 0.0:
            return torch.zeros(children.shape[:2], dtype=torch.float64, device=children.device)
        if self.frozen is not None:
            # Given parts are the same under both laws: they take no part in the ratio.
            shift = torch.where(self.frozen, 0.0, shift)
        a, b, noise = clock.entries(coefficients, step)
        return ops.gaussian_log_ratio(
            children,
            x,
            prediction,
            x_coefficient=a,
            prediction_coefficient=b,
            sigma=noise,
            shift=shift,
            ancestors=ancestors,
        )

    def guide(self, gradient: Tensor, step: int, alpha: float) -> Tensor:
        """Return the shift of the mean ``noise² ∇v / alpha`` that a gradient of the value makes in a step."""
        _, _, noise = clock.entries(self.process.sampler_steps, step)
        factor = noise * noise / alpha
        return gradient.float() * (factor[0].float() if isinstance(factor, Tensor) else factor)

    def kind(self, step: int) -> int:
        """Return what decides how a step is taken: whether it has noise."""
        return int(self.process.sampler_steps[step].noise > 0.0)

    def _mean(self, x: Tensor, output: Tensor, step: int) -> tuple[Tensor, Sequence[tuple[float, float, float]]]:
        """Return the prediction of a step, and the coefficients of all steps in state, prediction and noise."""
        process = self.process
        if process.multistep:
            return output[:, 1].contiguous(), process.sampler_steps
        if process.clip_x0 is not None:
            return process.clean(x, output, step), process.sampler_steps
        return output, process.output_steps

    def _replace(self, children: Tensor, level: int, group: Tensor, seed: Tensor, slots: Tensor | None) -> None:
        """Put the given parts, noised to ``level``, into children ``[P, M, *shape]`` in place."""
        assert self.given is not None
        assert self.frozen is not None
        process = self.process
        count, branch = children.shape[:2]
        given = self.given[None]
        rows = torch.zeros(count, dtype=torch.int64, device=children.device)
        if self.given.ndim > len(process.shape):
            given = self.given
            within = (
                torch.arange(count // len(group), device=children.device).repeat(len(group)) if slots is None else slots
            )
            rows = group.repeat_interleave(count // len(group)) * self.particles + within
        a = clock.entry(process.alphas, level)
        s = clock.entry((*process.sigmas_of_states[: process.steps], 0.0), level)
        noised = ops.gaussian_step(
            given, given, x_coefficient=a, prediction_coefficient=0.0, sigma=s, ancestors=rows, branch=branch, seed=seed,
            step=clock.number(process.steps + 1 + level), slots=slots,
        )  # fmt: skip
        torch.where(self.frozen, noised, children, out=children)
