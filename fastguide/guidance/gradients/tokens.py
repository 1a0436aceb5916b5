r"""Estimates of ``Δ[l, y] ≈ v(x with l := y) − v(x)`` at the open positions l of masked states.

| name | Δ | cost a state |
|---|---|---|
| ``"decoded"`` | ``g[l] · (e_y − s[l])``, s = soft x̂0 (one-hot where revealed), ``g = ∂r/∂s`` | a gradient of the reward |
| ``"exact"`` | ``r(x̂0 with l := y) − r(x̂0)`` | up to ``L · V`` rewards, equal samples once |
| ``"input"`` | ``g[l, y] − g[l, mask]``, ``g = ∂r(s)/∂x`` through the denoiser, x one-hot | a gradient of both |

``"input"`` is of Nisonoff et al., 2406.01572. It needs a denoiser that reads a soft one-hot ``[n, L, V + 1]``, the mask a token
like any other. ``"exact"`` needs no derivative; it asks the reward and not the denoiser: what the other positions would
become is not predicted anew.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastguide.deferred import deferring
from fastguide.states import States

_NUMBERS = 2**22
"""Most tokens of substituted samples that are made at a time."""


def decoded(states: States) -> Tensor:
    """Return ``[U, L, V]`` of the reward's gradient at the soft clean sample."""
    soft = states.estimate_soft().detach().requires_grad_()
    gradient = states.gradient(soft, soft)
    return (gradient - (gradient * soft.detach()).sum(-1, keepdim=True)) * states.opened()


def through_input(states: States) -> Tensor:
    """Return ``[U, L, V]`` of the gradient in the state itself."""
    denoiser = states.scene.denoiser
    if not denoiser.differentiable:
        raise TypeError(
            'gradient: "input" needs a denoiser through which gradients flow to a soft one-hot [n, L, V + 1]; '
            f'{type(denoiser).__name__} is not differentiable, use "decoded"'
        )
    assert states.output is not None
    vocab, opened = states.output.shape[-1], states.opened()
    with torch.enable_grad():
        x = states.one_hot().requires_grad_()
        output = states.predict(x).output
        soft = states.estimate_soft(x, output)
    gradient = states.gradient(soft, x)
    return (gradient[..., :vocab] - gradient[..., vocab:]) * opened


def exact(states: States) -> Tensor:
    """Return ``[U, L, V]`` of the rewards of all single substitutions in the clean sample predicted."""
    assert states.output is not None
    x0, vocab = states.estimate(), states.output.shape[-1]
    delta = torch.zeros(states.output.shape, dtype=torch.float32, device=x0.device)
    token = torch.arange(vocab, device=x0.device)
    is_open = states.opened()
    if deferring():  # the host cannot be told which positions are open: all are tried, padding too
        opened = torch.cartesian_prod(*(torch.arange(n, device=x0.device) for n in x0.shape))
    else:
        opened = is_open[..., 0].nonzero()
    for part in torch.split(opened, max(1, _NUMBERS // (vocab * x0.shape[1]))):
        u, at = part.unbind(1)
        changed = x0[u, None].repeat(1, vocab, 1)
        changed[torch.arange(len(u), device=x0.device)[:, None], token, at[:, None]] = token
        rewards = states.take(u).rewards(changed)
        # −inf says that the guess is forbidden, not that the state cannot be completed: it counts as the worst that is allowed.
        low = torch.where(rewards == -torch.inf, torch.inf, rewards).amin(1, keepdim=True)
        rewards = torch.maximum(rewards, torch.where(low == torch.inf, 0.0, low))
        delta[u, at] = (rewards - rewards.gather(1, x0[u, at].clamp(max=vocab - 1)[:, None])).float()
    return delta * is_open
