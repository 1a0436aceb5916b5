"""The steps of Gaussian samplers, as coefficients of the state, of the clean sample and of the noise.

A step goes from the level ``(alpha, sigma)`` = ``(a, s)`` to ``(a', s')``. With the clean sample x̂0 that the denoiser predicts,
and the noise ``ε̂ = (x − a x̂0) / s`` that it implies, most samplers are

    x' = a' x̂0 + sqrt(s'² − c²) ε̂ + c z

and differ in how much noise c is fresh. All coefficients are float64 numbers, computed once.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Step(NamedTuple):
    """``x' = x · x_coefficient + x̂0 · x0_coefficient + noise · z``."""

    x_coefficient: float
    x0_coefficient: float
    noise: float


def renew(a: float, s: float, a_next: float, s_next: float, noise: float) -> Step:
    """Return the step that keeps ``sqrt(s'² − noise²)`` of the implied noise and adds ``noise``."""
    kept = math.sqrt(max(s_next * s_next - noise * noise, 0.0)) / s
    return Step(kept, a_next - kept * a, noise)


def posterior_noise(a: float, s: float, a_next: float, s_next: float) -> float:
    """Return the standard deviation of ``x'`` given x and x_0: ``s' sqrt(1 − (a s' / (a' s))²)``."""
    ratio = a * s_next / (a_next * s)
    return s_next * math.sqrt(max(1.0 - ratio * ratio, 0.0))


def ddpm(a: float, s: float, a_next: float, s_next: float, variance: str) -> Step:
    """Return the ancestral step: the mean of x' given x and x̂0, with the smaller or the larger of its two variances.

    ``"small"`` is the variance of x' given x and x_0, right where the data are one point; ``"large"`` that of x given x',
    ``s² − (a / a')² s'²``, right where they are normal of unit variance and alpha² + sigma² = 1 (2006.11239, section 3.2).
    With alpha = 1 the larger makes it the Euler–Maruyama step of the reverse SDE in sigma² (2011.13456).
    """
    step = renew(a, s, a_next, s_next, posterior_noise(a, s, a_next, s_next))
    if variance == "small" or s_next == 0.0:
        return step
    return step._replace(noise=math.sqrt(max(s * s - (a * s_next / a_next) ** 2, 0.0)))


def ddim(a: float, s: float, a_next: float, s_next: float, eta: float) -> Step:
    """Return the step with ``eta`` times the noise of `ddpm`; none at 0 (2010.02502, equation 16)."""
    return renew(a, s, a_next, s_next, min(eta * posterior_noise(a, s, a_next, s_next), s_next))


def flow(a: float, s: float, a_next: float, s_next: float, eta: float) -> Step:
    """Return the step of the flow with Langevin noise: ``dx = u dt − ½ w score dt + sqrt(w) dW``.

    Here ``w dt = 2 eta² sigma dsigma``. The SDE has the marginals of the flow for any w (2303.08797; 2401.08740 takes w ∝ sigma
    as here). Its linear part is solved
    exactly over the step: of the implied noise ``(s' / s)^(eta²)`` is kept.
    """
    kept = (s_next / s) ** (eta * eta)
    return renew(a, s, a_next, s_next, s_next * math.sqrt(max(1.0 - kept * kept, 0.0)))


def churned(sigmas: tuple[float, ...], churn: float, low: float, high: float) -> tuple[float, ...]:
    """Return the levels that noise is raised to before each step: ``sigma (1 + min(churn / T, √2 − 1))`` within a range."""
    steps = len(sigmas) - 1
    gain = min(churn / steps, math.sqrt(2.0) - 1.0)
    return tuple(s * (1.0 + gain) if low <= s <= high and s > 0.0 else s for s in sigmas)


def edm(s: float, plain_next: float, s_next: float, s_noise: float) -> Step:
    """Return Euler's step from a raised level to ``plain_next``, and the noise that raises it again (2206.00364, algorithm 2).

    The paper raises the noise first and steps then; cut before the denoiser instead of before the noise, its samples are the
    same and each state is one the denoiser is asked of.
    """
    kept = plain_next / s
    return Step(kept, 1.0 - kept, s_noise * math.sqrt(max(s_next * s_next - plain_next * plain_next, 0.0)))
