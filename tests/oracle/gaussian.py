"""A one-dimensional mixture of normals under a Gaussian diffusion and a quadratic reward: everything is known.

The law of the process *as run*, with its finite number of steps, comes from a chain of transfer matrices on a grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

import fastguide as fg

WEIGHTS, MEANS, VARIANCES = (0.7, 0.3), (-2.0, 3.0), (0.25, 0.25)
DTYPE = torch.float64


@dataclass(frozen=True)
class Moments:
    """Of the target ``p(x0) exp(r(x0))``."""

    log_z: float
    mean: float
    variance: float


CONTINUOUS = Moments(-1.7098, 2.7770, 0.2915)
"""Of the mixture itself, in closed form."""


def reward(x0: Tensor) -> Tensor:
    """``−(x − 2)² / 2``."""
    return -0.5 * (x0[:, 0].double() - 2.0) ** 2


class Mixture:
    """The exact denoiser of the mixture, in the parametrisation of a process."""

    def __init__(self, process: fg.GaussianProcess) -> None:
        self.process = process

    def posterior_mean(self, x: Tensor, a: float, s: float) -> Tensor:
        """``E[x0 | x]`` for ``x = a x0 + s eps``, float64."""
        weights, means, variances = (torch.tensor(v, dtype=DTYPE) for v in (WEIGHTS, MEANS, VARIANCES))
        total = a * a * variances + s * s
        gap = x.double()[..., None] - a * means
        share = torch.softmax(weights.log() - 0.5 * total.log() - 0.5 * gap**2 / total, dim=-1)
        return (share * (means + a * variances / total * gap)).sum(-1)

    def output(self, x: Tensor, step: int) -> Tensor:
        """What a perfect network returns at a level, float64."""
        a, s = self.process.alphas[step], self.process.sigmas_of_states[step]
        x0 = self.posterior_mean(x, a, s)
        eps = (x.double() - a * x0) / s
        return {
            "x0": x0, "eps": eps, "score": -eps / s, "velocity": eps - x0, "v": (a * eps - s * x0) / math.hypot(a, s)
        }[self.process.prediction]  # fmt: skip

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.output(x, int(self.process.step_of(t[:1]))).float()

    def law(self, low: float = -12.0, high: float = 12.0, points: int = 1601) -> tuple[Tensor, Tensor]:
        """Return clean samples ``[points]`` and their probabilities under the process as run.

        Densities at the levels live on a grid as wide as the level; the last step is a map where it has no noise.
        """
        process = self.process
        scale = max(1.0, process.prior_std)
        x = torch.linspace(low * scale, high * scale, points, dtype=DTYPE)
        p = torch.exp(-0.5 * (x / process.prior_std) ** 2)
        p /= p.sum()
        for step in range(process.steps):
            of_x, of_x0, noise = process.sampler_steps[step]
            p_x, p_out = process.estimates[step]
            x0 = p_x * x + p_out * self.output(x, step)
            mean = of_x * x + of_x0 * x0
            if noise == 0.0:
                x = mean
                continue
            scale = max(1.0, process.sigmas_of_states[step + 1])
            grid = torch.linspace(low * scale, high * scale, points, dtype=DTYPE)
            kernel = torch.exp(-0.5 * ((grid - mean[:, None]) / noise) ** 2)
            p = p @ (kernel / kernel.sum(1, keepdim=True).clamp_min(1e-300))
            x = grid
        return x, p / p.sum()

    def target(self, alpha: float = 1.0, points: int = 1601) -> Moments:
        """Return the moments of the tilted law of the process as run."""
        x, p = self.law(points=points)
        w = p * torch.exp(reward(x[:, None]) / alpha)
        z = w.sum()
        mean = (w * x).sum() / z
        return Moments(float(z.log()), float(mean), float((w * (x - mean) ** 2).sum() / z))


def moments(result: fg.Result) -> Moments:
    """Of the weighted samples of all groups."""
    w = torch.softmax(result.log_weights, 0)
    x = result.samples[:, 0].double()
    mean = (w * x).sum()
    return Moments(float(result.log_normalizer), float(mean), float((w * (x - mean) ** 2).sum()))
