r"""Estimates of ``∇v(x)`` of real states, ``v(x) = r(x̂0(x))``.

| name | ∇v | cost a state |
|---|---|---|
| ``"through"`` | ``∇_x r(x̂0(x))``, through the denoiser | a gradient of both |
| ``"decoded"`` | ``a / (a² + s²) · ∇_x̂0 r(x̂0)``, for ``x = a x_0 + s ε`` | a gradient of the reward |

``"through"`` is diffusion posterior sampling (Chung et al., 2209.14687). ``"decoded"`` takes for the derivative of x̂0 what it
is for data of unit variance, whatever the network predicts.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastguide.states import States


def through(states: States) -> Tensor:
    """Return ``[U, *shape]``, the gradient through the denoiser."""
    with torch.enable_grad():
        x = states.x.detach().clone().requires_grad_()
        output = states.predict(x).output
        x0 = states.scene.bound.estimate(x, output, step=states.step, group=states.group)
    if not output.requires_grad:
        raise TypeError('denoiser: no gradient flows through it (torch.no_grad, detach?); use gradient="decoded"')
    return states.gradient(x0, x)


def decoded(states: States) -> Tensor:
    """Return ``[U, *shape]``, the gradient at the clean sample predicted."""
    process: Any = states.scene.process
    x0 = states.estimate().detach().clone().requires_grad_()
    a, s = process.alphas[states.step], process.sigmas_of_states[states.step]
    slope: float = a / (a * a + s * s)
    return states.gradient(x0, x0) * slope
