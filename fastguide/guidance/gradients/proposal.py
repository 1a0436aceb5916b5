r"""The guided proposal: an estimate of how the value changes, turned into a shift of the model's own step.

Of tokens the estimate is ``Δ[l, y] ≈ v(x with l := y) − v(x)``, and a position that is revealed draws from
``softmax(lp[l] + scale · Δ[l] / alpha)``, ``lp`` the log-probabilities after bias, temperature and truncation. Which
positions are revealed is not tilted. Of real states it is ``∇v``, and the mean of a step with noise σ moves by
``scale · σ² ∇v / alpha``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fastguide import clock
from fastguide.deferred import require
from fastguide.guidance.gradients import real, tokens
from fastguide.guidance.protocol import is_number
from fastguide.memory import fixed_batches
from fastguide.states import Scene, States

Estimator = Callable[[States], Tensor]
"""``states -> [U, L, V]`` Δ of tokens, or ``[U, *shape]`` ∇v of real states, all of one problem; each state counts alone."""

_NUMBERS = 2**24
"""Most numbers of an estimate that are computed at a time."""

_OF_TOKENS: dict[str, Estimator] = {"decoded": tokens.decoded, "exact": tokens.exact, "input": tokens.through_input}
_OF_REAL: dict[str, Estimator] = {"through": real.through, "decoded": real.decoded}


def check_gradient(gradient: object, scale: object, clip: object) -> None:
    """Raise unless these are settings of a `GradientProposal`."""
    names = [*_OF_TOKENS, *(name for name in _OF_REAL if name not in _OF_TOKENS)]
    if not (gradient is None or callable(gradient) or gradient in names):
        raise ValueError(
            f"gradient: unknown {gradient!r}; choose one of {', '.join(names)}, or give a function of states"
        )
    if not callable(scale) and not (is_number(scale) and scale >= 0):
        raise ValueError(f"scale: expected a number of at least 0, or a function of the noise level, got {scale!r}")
    if clip is not None and not (is_number(clip) and clip > 0):
        raise ValueError(f"clip: expected a positive number or None, got {clip!r}")


@dataclass(frozen=True)
class GradientProposal:
    """See `fastguide.guidance.protocol.Proposal`, and `fastguide.TDS` for the settings."""

    alpha: float
    gradient: str | Estimator | None = None
    scale: float | Callable[[float], float] = 1.0
    clip: float | None = None
    corrected: bool = True

    @property
    def follows_clock(self) -> bool:
        """Whether no number of a step is read on the host, as a function of the noise level would have to be."""
        return not callable(self.scale) and not callable(self.gradient)

    def rows(self, scene: Scene) -> tuple[int, int]:
        """Return how many rows of the denoiser and of the reward the gradient of a state costs at most."""
        process: Any = scene.process
        if self.gradient == "exact":
            return 0, process.length * process.vocab
        real = hasattr(scene.bound, "guide")
        return (0 if self.gradient == "decoded" or not (real or self.gradient) else 1), 1

    def shift(self, states: States) -> Tensor:
        """Return float32 what is added to log-probabilities ``[U, L, V]``, or to means ``[U, *shape]``."""
        scale = self.strength(states.time)
        if states.x.is_floating_point():
            return self._of_means(states, scale)
        return self._of_tokens(states, scale)

    def strength(self, time: float) -> float:
        """Return ``scale`` at a noise level."""
        scale = self.scale(time) if callable(self.scale) else self.scale
        if not is_number(scale):
            raise ValueError(f"scale: expected a finite number at noise level {time:g}, got {scale!r}")
        return scale

    def limited(self, gradient: Tensor, time: float) -> Tensor:
        """Return gradients ``[n, …]`` no longer than ``clip``, changed in place; refuse what is not finite."""
        where = "" if clock.is_running() else f", at noise level {time:g}"
        require(
            torch.isfinite(gradient),
            gradient,
            lambda *_: ValueError(
                f"gradient: the reward has a derivative that is nan or infinite{where}; smooth it, or use "
                'gradient="exact" for tokens'
            ),
        )
        if self.clip is not None:
            flat = gradient.flatten(1)
            flat *= self.clip / flat.norm(dim=1, keepdim=True).clamp(min=self.clip)
        return gradient

    def gradient_of(self, states: States) -> Tensor:
        """Return float32 ``[U, *shape]``, ∇v of real states."""
        return self._estimate(states, self._estimator(_OF_REAL, "through"), states.x.shape)

    def _of_tokens(self, states: States, scale: float) -> Tensor:
        output = states.output
        assert output is not None
        if not callable(self.gradient) and not hasattr(states.scene.bound, "log_probs"):
            name = type(states.scene.process).__name__
            raise TypeError(f"gradient: none is known for {name}; give a function of states, or use SMC or SVDD")
        delta = self._estimate(states, self._estimator(_OF_TOKENS, "decoded"), output.shape)
        return delta.mul_(scale / self.alpha)

    def _of_means(self, states: States, scale: float) -> Tensor:
        process: Any = states.scene.process
        bound: Any = states.scene.bound
        if not hasattr(bound, "guide"):
            name = type(states.scene.process).__name__
            raise TypeError(f"gradient: none is known for {name}; give a function of states, or use SMC or SVDD")
        noise = [step.noise for step in process.sampler_steps]
        if not any(noise):
            raise ValueError(
                f"process: {type(process).__name__} draws no noise at any step, so that its steps cannot be guided; give "
                'eta > 0 or s_churn > 0, or take the sampler "ddpm"'
            )
        if noise[states.step] == 0.0:
            return torch.zeros_like(states.x)
        guided: Tensor = bound.guide(self.gradient_of(states), states.step, self.alpha)
        return guided.mul_(scale)

    def _estimator(self, known: dict[str, Estimator], default: str) -> Estimator:
        if callable(self.gradient):
            return self.gradient
        name = self.gradient or default
        if name not in known:
            raise ValueError(f"gradient: {name!r} is not among those of this process: {', '.join(known)}")
        return known[name]

    def _estimate(self, states: States, estimate: Estimator, shape: torch.Size) -> Tensor:
        out = torch.empty(shape, dtype=torch.float32, device=states.x.device)
        rows = max(1, min(states.predictor.call_rows, _NUMBERS // max(1, math.prod(shape[1:]))))
        for number, members in enumerate(states.scene.problems.members(states.problem, states.spans)):
            # A call has always as many rows, padded by repeating the last: the last bits of a network's gradient may depend on
            # the number. They may depend on the place of a row too; weights follow the shift as it was, and stay exact.
            for index, count in fixed_batches(len(members), rows, members.device):
                some = index[:count] if states.predictor.memory.ragged else index
                part = estimate(replace(states.take(members[some], ((number, len(some)),)), real=count))
                if part.shape != (len(some), *shape[1:]):
                    raise ValueError(f"gradient: expected shape {[len(some), *shape[1:]]}, got {list(part.shape)}")
                out[members[index[:count]]] = part[:count].detach().to(out)
        return self.limited(out, states.time)
