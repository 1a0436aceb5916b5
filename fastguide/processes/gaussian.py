"""Gaussian diffusion: real-valued states of any shape.

A level of noise t has ``x_t = alpha_t x_0 + sigma_t eps``. The denoiser predicts eps, or x_0, or something that gives it, and
each reverse step is linear in the state and that prediction, with normal noise:

    x_{t−1} = x_coefficient · x_t + prediction_coefficient · output + noise · z.

The law that guidance tilts is this process *as run*, its number of steps and its sampler included. Without noise (``ddim`` at
``eta = 0``, ``edm`` at ``s_churn = 0``) copies of a particle stay copies, so that resampling gains nothing and no proposal can
be corrected: it is then importance sampling from the start.

| sampler | fresh noise of a step | source |
|---|---|---|
| ``"ddpm"`` | that of the posterior, the smaller ``variance`` or the larger (Euler–Maruyama where alpha = 1) | 2006.11239 |
| ``"ddim"`` | ``eta`` times the smaller; with ``schedule="flow"`` a flow turned into an SDE, memoryless at 1 | 2010.02502 |
| ``"edm"`` | Euler's step, and before it the noise raised by ``s_churn / T`` of itself (alpha = 1) | 2206.00364 |
| ``"flow"`` | Langevin noise on the probability flow, ``2 eta² sigma dsigma``: the same marginals at any | 2401.08740 |
| ``"sde-dpmsolver++"`` | that of ``"ddpm"``; x̂0 is extrapolated from the last two steps (second order) | 2211.01095 |

| prediction | output | clean sample |
|---|---|---|
| ``"eps"`` | the noise | ``(x − sigma · out) / alpha`` |
| ``"x0"`` | the clean sample | ``out`` |
| ``"v"`` | ``(alpha eps − sigma x_0) / n`` with ``n² = alpha² + sigma²`` | ``(alpha x − sigma n · out) / n²`` |
| ``"score"`` | the gradient of the log-density, ``−eps / sigma`` | ``(x + sigma² · out) / alpha`` |
| ``"velocity"`` | ``eps − x_0`` | ``(x − sigma · out) / (alpha + sigma)`` |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastguide import clock
from fastguide.ops._checks import choice, count
from fastguide.processes import samplers
from fastguide.processes.bound_gaussian import BoundGaussian
from fastguide.processes.levels import Levels, levels, numbers
from fastguide.processes.multistep import Multistep
from fastguide.processes.protocol import Constraints
from fastguide.processes.samplers import Step

if TYPE_CHECKING:
    from fastguide.models.protocol import Denoiser

PREDICTIONS = ("eps", "x0", "v", "score", "velocity")
SAMPLERS = ("ddpm", "ddim", "edm", "flow", "sde-dpmsolver++")
VARIANCES = ("small", "large")
WITH_ETA = ("ddim", "flow")


@dataclass(frozen=True)
class GaussianProcess:
    """Gaussian diffusion over states of one shape.

    Args:
        shape: of a state, ``(D,)`` or ``(C, H, W)``; a number is ``(D,)``.
        steps: reverse steps T.
        prediction: what the denoiser returns: ``"eps"``, ``"x0"``, ``"v"``, ``"score"`` or ``"velocity"``.
        sampler: ``"ddpm"``, ``"ddim"``, ``"edm"``, ``"flow"`` or ``"sde-dpmsolver++"``.
        schedule: ``"linear"``, ``"cosine"``, ``"loglinear"``, ``"karras"``, ``"flow"`` (see `fastguide.processes.levels`); a
            function ``alpha_bar(t)``, or the decreasing list ``alphas_cumprod`` of the levels that a network was trained at, of
            which ``steps`` are taken, the noisiest included. Both are variance preserving, ``alpha² = alpha_bar``.
        sigmas: ``T + 1`` levels of one's own, decreasing to 0, with alpha = 1, or ``1 − sigma`` for ``schedule="flow"``.
        eta: of ``"ddim"`` and ``"flow"``, how much fresh noise; 1 where None.
        variance: of ``"ddpm"``: ``"small"`` or ``"large"``.
        s_churn: of ``"edm"``: noise is raised by the share ``min(s_churn / T, √2 − 1)``.
        s_tmin: the least sigma at which it is. s_tmax: the largest. s_noise: factor of that noise.
        sigma_min: last level before the data, of ``"karras"`` and ``"loglinear"``.
        sigma_max: first level. rho: of ``"karras"``.
        clip_x0: x̂0 is clipped to ``[−clip_x0, clip_x0]``, in values and in steps; None leaves it.
    """

    shape: tuple[int, ...]
    steps: int = 50
    prediction: str = "eps"
    sampler: str = "ddpm"
    schedule: str | Callable[[float], float] | Sequence[float] = "linear"
    sigmas: Sequence[float] | None = None
    eta: float | None = None
    variance: str = "small"
    s_churn: float = 40.0
    s_tmin: float = 0.0
    s_tmax: float = math.inf
    s_noise: float = 1.0
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0
    clip_x0: float | None = None

    def __post_init__(self) -> None:
        shape = (self.shape,) if hasattr(self.shape, "__index__") else tuple(self.shape)
        object.__setattr__(self, "shape", tuple(count("shape", size) for size in shape))
        object.__setattr__(self, "steps", count("steps", self.steps))
        choice("prediction", self.prediction, PREDICTIONS)
        choice("sampler", self.sampler, SAMPLERS)
        choice("variance", self.variance, VARIANCES)
        if not self.shape:
            raise ValueError("shape: expected at least one dimension, such as (2,), got ()")
        for name in ("schedule", "sigmas"):
            given = getattr(self, name)
            if given is not None and not isinstance(given, str) and not callable(given):
                object.__setattr__(self, name, numbers(name, given))
        if self.eta is not None and self.sampler not in WITH_ETA:
            raise ValueError(f"eta: only of the samplers {', '.join(WITH_ETA)}; leave it out with {self.sampler!r}")
        if self.variance != "small" and self.sampler != "ddpm":
            raise ValueError(f'variance: only of the sampler "ddpm"; leave it out with {self.sampler!r}')
        least = {"eta": 0.0, "s_churn": 0.0, "s_tmin": 0.0, "s_tmax": 0.0, "s_noise": 0.0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise ValueError(f"{name}: expected a number of at least 0, got {value!r}")
        for name in ("sigma_min", "sigma_max", "rho", "clip_x0"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0.0):
                raise ValueError(f"{name}: expected a finite number above 0, got {value!r}")
        if not self.sigma_min < self.sigma_max:
            raise ValueError(f"sigma_min: expected less than sigma_max = {self.sigma_max:g}, got {self.sigma_min!r}")
        if self.sampler == "edm" and self._plain.alphas[0] != 1.0:
            raise ValueError('sampler: "edm" needs alpha = 1; use schedule="karras", "loglinear" or sigmas')
        if self.prediction in ("eps", "score") and self.alphas[0] == 0.0:
            raise ValueError(
                f"prediction: {self.prediction!r} tells nothing of x0 where alpha is 0, as it is at the first level of "
                'this schedule; use "velocity", "v" or "x0", or sigmas that start below 1'
            )

    @cached_property
    def _plain(self) -> Levels:
        """The levels before any noise is raised."""
        return levels(self.schedule, self.steps, self.sigmas, self.sigma_min, self.sigma_max, self.rho)

    @property
    def times(self) -> tuple[float, ...]:
        """The ``T + 1`` noise levels t that the denoiser is told, from noise to data."""
        return self._plain.times

    @property
    def alphas(self) -> tuple[float, ...]:
        """The ``T + 1`` factors of the clean sample."""
        return self._plain.alphas

    @cached_property
    def sigmas_of_states(self) -> tuple[float, ...]:
        """The ``T + 1`` standard deviations of the noise in the states that the denoiser sees, churn included."""
        if self.sampler != "edm":
            return self._plain.sigmas
        return samplers.churned(self._plain.sigmas, self.s_churn, self.s_tmin, self.s_tmax)

    @property
    def timesteps(self) -> tuple[int, ...] | None:
        """The ``T`` indices into the list that ``schedule`` is, where it is one."""
        return self._plain.timesteps

    def step_of(self, t: Tensor) -> Tensor:
        """Return int64 which level each t ``[n]`` that the denoiser is told is, 0 the first: it indexes the tuples above."""
        return (t[:, None] - self.numbers_on(t.device)[:, 0]).abs().argmin(dim=1)

    def numbers_on(self, device: torch.device) -> Tensor:
        """Return ``[T, 4]`` float32: t, p and q of `estimates`, and f of `extrapolations` (0 where no step is read back).

        They are copied to a device once, as a copy makes the host wait.
        """
        if device not in self._numbers:
            factors = self.extrapolations if self.multistep else (0.0,) * self.steps
            steps = zip(self.times[:-1], self.estimates, factors, strict=True)
            rows = [(t, p, q, f) for t, (p, q), f in steps]
            self._numbers[device] = torch.tensor(rows, dtype=torch.float32, device=device)
        return self._numbers[device]

    @cached_property
    def _numbers(self) -> dict[torch.device, Tensor]:
        return {}

    @cached_property
    def prior_std(self) -> float:
        """The standard deviation of the first states: that of noise, and of data of unit variance where alpha < 1."""
        a, s = self.alphas[0], self.sigmas_of_states[0]
        return s if a == 1.0 else math.hypot(a, s)

    @cached_property
    def sampler_steps(self) -> tuple[Step, ...]:
        """The coefficients of the T steps in the state, the clean sample and the noise."""
        a, s, plain = self.alphas, self.sigmas_of_states, self._plain.sigmas
        eta = 1.0 if self.eta is None else self.eta
        found = []
        for k in range(self.steps):
            level = (a[k], s[k], a[k + 1], s[k + 1])
            if self.sampler == "edm":
                found.append(samplers.edm(s[k], plain[k + 1], s[k + 1], self.s_noise))
            elif self.sampler == "ddim":
                found.append(samplers.ddim(*level, eta))
            elif self.sampler == "flow":
                found.append(samplers.flow(*level, eta))
            else:
                found.append(samplers.ddpm(*level, self.variance))
        return tuple(found)

    @cached_property
    def estimates(self) -> tuple[tuple[float, float], ...]:
        """The T pairs (p, q) of ``x̂0 = p · x + q · output``."""
        return tuple(
            estimate(self.prediction, a, s) for a, s in zip(self.alphas[:-1], self.sigmas_of_states[:-1], strict=True)
        )

    @cached_property
    def output_steps(self) -> tuple[tuple[float, float, float], ...]:
        """The coefficients of the T steps in the state, the denoiser's output and the noise."""
        pairs = zip(self.sampler_steps, self.estimates, strict=True)
        return tuple((of_x + of_x0 * p, of_x0 * q, noise) for (of_x, of_x0, noise), (p, q) in pairs)

    def clean(self, x: Tensor, output: Tensor, step: int) -> Tensor:
        """Return the clean sample ``[n, *shape]`` that the output predicts after ``step`` steps, clipped if asked."""
        alone = self.estimates[step][0] == 0.0
        # Without a dimension, as a number: it leaves the dtype of what it multiplies.
        p, q = (c[0].float() if isinstance(c, Tensor) else c for c in clock.entries(self.estimates, step))
        x0 = output.float() * q if alone else x * p + output * q
        return self.clipped(x0)

    def clipped(self, x0: Tensor) -> Tensor:
        """Return a clean sample within the bounds of the process."""
        return x0 if self.clip_x0 is None else x0.clamp(-self.clip_x0, self.clip_x0)

    @property
    def multistep(self) -> bool:
        """Whether a step reads the clean sample predicted in the step before."""
        return self.sampler == "sde-dpmsolver++"

    @cached_property
    def extrapolations(self) -> tuple[float, ...]:
        """The T factors f of ``x̂0 + f (x̂0 − x̂0 of the step before)`` that a multistep sampler takes for x̂0.

        ``f = h_k / (2 h_{k−1})`` with h the steps of ``log(alpha / sigma)``; 0 at the first and last step, which are of first
        order, as the step before the first is not there and the last is infinite.
        """
        ratios = [
            math.log(a / s) if a > 0.0 else -math.inf
            for a, s in zip(self.alphas[:-1], self.sigmas_of_states[:-1], strict=True)
        ]
        h = [s - t for t, s in pairwise(ratios)]
        middle = (0.0 if math.isinf(before) else after / before / 2.0 for before, after in pairwise(h))
        return (0.0, *middle, 0.0)[: self.steps]

    def wrap(self, denoiser: Denoiser) -> Denoiser:
        """Return the denoiser that a run calls: one that remembers the step before, where the sampler reads it."""
        return Multistep(denoiser, self) if self.multistep else denoiser

    def bind(
        self, constraints: Constraints, *, groups: int, particles: int, seeds: Tensor, device: torch.device
    ) -> BoundGaussian:
        """Return the process with the given parts of a run, and its first states drawn from the groups' seeds."""
        return BoundGaussian(self, constraints, groups, particles, seeds, device)


def estimate(prediction: str, a: float, s: float) -> tuple[float, float]:
    """Return (p, q) of ``x̂0 = p · x + q · output`` at a level ``x = a x_0 + s eps``."""
    if prediction == "eps":
        return 1.0 / a, -s / a
    if prediction == "x0":
        return 0.0, 1.0
    if prediction == "v":
        n = math.hypot(a, s)
        return a / (n * n), -s / n
    if prediction == "score":
        return 1.0 / a, s * s / a
    return 1.0 / (a + s), -s / (a + s)
