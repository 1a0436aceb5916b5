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

from typing import Any

import torch
from torch import Tensor

from fastguide.deferred import deferring
from fastguide.states import States

_NUMBERS = 2**22
"""Most tokens of substituted samples that are made at a time."""


def decoded(states: States) -> Tensor:
    """Return ``[U, L, V]`` of the reward's gradient at the soft clean sample."""
    assert states.output is not None
    opened = _open(states)
    soft = soft_estimate(states).detach().requires_grad_()
    gradient = states.gradient(soft, soft)
    return (gradient - (gradient * soft.detach()).sum(-1, keepdim=True)) * opened


def through_input(states: States) -> Tensor:
    """Return ``[U, L, V]`` of the gradient in the state itself."""
    denoiser = states.scene.denoiser
    if not denoiser.differentiable:
        raise TypeError(
            'gradient: "input" needs a denoiser through which gradients flow to a soft one-hot [n, L, V + 1]; '
            f'{type(denoiser).__name__} is not differentiable, use "decoded"'
        )
    assert states.output is not None
    vocab, opened = states.output.shape[-1], _open(states)
    with torch.enable_grad():
        x = _one_hot(states).requires_grad_()
        output = states.predict(x).output
        soft = _soft(states, x, output, opened)
    gradient = states.gradient(soft, x)
    return (gradient[..., :vocab] - gradient[..., vocab:]) * opened


def exact(states: States) -> Tensor:
    """Return ``[U, L, V]`` of the rewards of all single substitutions in the clean sample predicted."""
    assert states.output is not None
    x0, vocab = states.estimate(), states.output.shape[-1]
    delta = torch.zeros(states.output.shape, dtype=torch.float32, device=x0.device)
    token = torch.arange(vocab, device=x0.device)
    is_open = _open(states)
    if deferring():  # the host cannot be told which positions are open: all are tried
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
        delta[u, at] = (rewards - rewards.gather(1, x0[u, at][:, None])).float()
    return delta * is_open


def soft_estimate(states: States) -> Tensor:
    """Return ``[U, L, V]`` the expected one-hot of the clean sample: probabilities where open, one-hot where not."""
    assert states.output is not None
    return _soft(states, _one_hot(states), states.output, _open(states))


def _open(states: States) -> Tensor:
    """Return bool ``[U, L, 1]``, the positions that are still to be revealed."""
    bound: Any = states.scene.bound
    opened: Tensor = bound.opened(states.x, group=states.group)
    return opened[..., None]


def _one_hot(states: States) -> Tensor:
    """Return float32 ``[U, L, V + 1]``, the mask last."""
    assert states.output is not None
    vocab = states.output.shape[-1]
    # By comparison: torch's one_hot reads how large the largest token is.
    tokens = torch.arange(vocab + 1, device=states.x.device)
    return (states.x.clamp(0, vocab)[..., None] == tokens).float()


def _soft(states: States, x: Tensor, output: Tensor, opened: Tensor) -> Tensor:
    """Return the soft clean sample ``[U, L, V]``: probabilities where open, ``x`` ``[U, L, V + 1]`` where not."""
    bound: Any = states.scene.bound
    log_p = bound.log_probs(states.x, output, group=states.group)
    return torch.where(opened, log_p.exp(), x[..., :-1])
