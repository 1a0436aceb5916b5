"""The guided denoising loop."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fastguide.budget import Budget
from fastguide.deferred import deferred
from fastguide.errors import DegenerateWeights
from fastguide.guidance.best_of_n import BestOfN
from fastguide.guidance.protocol import Driver, Guidance
from fastguide.memory import Memory, resolve_memory
from fastguide.models.protocol import Denoiser
from fastguide.processes.protocol import Constraints, Process
from fastguide.progress import Status
from fastguide.reference.exp import MAX_LOG_WEIGHT
from fastguide.result import Result
from fastguide.run import Run
from fastguide.steering import resolve_seeds
from fastguide.strength import AutoAlpha, divergence
from fastguide.trace import TraceStep
from fastguide.values.posterior_mean import PosteriorMean
from fastguide.values.protocol import Value

_PILOT = 0x5851F42D4C957F2D
"""Sets the random numbers of a pilot run apart from those of the run."""


def sample(
    process: Process,
    denoiser: Denoiser | Callable[..., Any],
    reward: Callable[..., Any] | Sequence[Callable[..., Any]],
    guidance: Guidance,
    *,
    value: Value | None = None,
    particles: int = 256,
    groups: int = 1,
    condition: Sequence[Any] | None = None,
    lengths: Sequence[int] | None = None,
    x_init: Tensor | None = None,
    frozen: Tensor | None = None,
    bias: Tensor | None = None,
    decode: Callable[[Tensor], Any] | Sequence[Callable[[Tensor], Any]] | None = None,
    seed: int | Sequence[int] | Tensor = 0,
    memory: Memory | int | str = "auto",
    budget: Budget | None = None,
    progress: bool | Callable[[Status], object] = True,
    callback: Callable[[TraceStep], object] | None = None,
    device: torch.device | str | None = None,
    cuda_graph: bool = False,
) -> Result:
    """Draw samples of ``p(x0) · exp(r(x0) / alpha)`` from the pretrained model ``p`` and the reward ``r``.

    Args:
        process: the mathematics of the diffusion, `fastguide.MaskedProcess`.
        denoiser: a `fastguide.models.Denoiser`, or a callable ``(x [n, *shape], t [n] float32) -> output``; of token rows
            ``[n, L]`` int64 it returns logits ``[n, L, V]``.
        reward: a `fastguide.rewards.Reward`, or a callable from ``decode(x0)`` to ``[n]`` numbers; a sequence of G gives each
            group its own. −inf forbids a sample.
        guidance: `fastguide.SMC`, `fastguide.SVDD`, `fastguide.BestOfN` or the like.
        value: the look-ahead estimator, `fastguide.PosteriorMean()` when None.
        particles: N per group.
        groups: G independent groups. Without ``condition`` they are replicates: their normalisers give a standard error.
        condition: one prompt, backbone, … a group, handed to ``denoiser.init``.
        lengths: positions of each group (the denoiser's ``length_of`` where it says so); the rest of a row is padding, never
            drawn, scored or compared.
        x_init: ``[*shape]``, ``[N, *shape]`` or ``[G·N, *shape]`` states to start from; tokens that are not the mask stay.
        frozen: bool, of the shape of a state: the parts of ``x_init`` to keep; None keeps what is no mask.
        bias: float32 ``[V]`` or ``[L, V]``, added to the logits of every draw; −inf forbids a token.
        decode: what turns clean rows ``[n, L]`` into what the reward sees; the denoiser's ``decode`` where None.
        seed: an int, expanded into one seed a group, or one int a group, taken as it is.
        memory: bytes to keep predictions in, a text such as ``"2GB"``, or `fastguide.Memory` settings.
        budget: a `fastguide.Budget` that the run does not exceed: when it gets short, the remaining steps are unguided.
        progress: True, False, or a callable that takes a `fastguide.progress.Status`.
        callback: called with the `TraceStep` of each step.
        device: of the states; the CPU when None.
        cuda_graph: record the step as a CUDA graph and replay it, which saves the launches of small networks and changes no
            bit. The denoiser and the reward have to compute on the GPU, from their arguments alone, with shapes that do not
            depend on data. `MaskedProcess`, `GaussianProcess`, `PosteriorMean`, and guidance that has no functions of the
            noise level among its settings and runs the loop once can be recorded; others are refused. Steps that differ from
            all others in their settings, and the last two, run as always.

    Returns:
        A `Result`. Its samples are weighted: ``result.draw(k)`` gives equally weighted ones.

    Raises:
        RewardError: the reward raised, or returned NaN, +inf or the wrong shape.
        DegenerateWeights: every sample of a group has weight zero; ``.result`` holds the other groups.
    """
    if not isinstance(process, Process):
        raise TypeError(f"process: expected fg.MaskedProcess(...) or the like, got {type(process).__name__}")
    settings: dict[str, Any] = {
        "value": value or PosteriorMean(),
        "condition": condition,
        "constraints": Constraints(x_init, frozen, bias, lengths),
        "decode": decode,
        "memory": resolve_memory(memory),
        "device": torch.device(device or "cpu"),
    }
    model = (process, denoiser, reward)
    if isinstance(getattr(guidance, "alpha", None), AutoAlpha):
        guidance = _with_number(guidance, model, settings, particles, groups, seed, x_init, progress is True)
    run = Run(
        *model, guidance, particles=particles, groups=groups, seed=seed, budget=budget, progress=progress,
        callback=callback, cuda_graph=cuda_graph, **settings,
    )  # fmt: skip
    with torch.no_grad(), nullcontext() if run.device.type == "cpu" else deferred():
        result = guidance.drive(run) if isinstance(guidance, Driver) else run.sample()
    dead = (result.log_weights.view(result.groups, result.particles) < -MAX_LOG_WEIGHT).all(dim=1)
    if bool(dead.any()):
        which = tuple(int(g) for g in dead.nonzero()[:, 0])
        raise DegenerateWeights(
            f"log_weights: every sample of group {', '.join(map(str, which))} has weight zero (reward −inf, or "
            f"reward / alpha below {-MAX_LOG_WEIGHT:.0e}); use more particles, a larger alpha, or put a hard token "
            "constraint into bias, where it masks the draw",
            which,
            result,
        )
    return result


def _with_number(
    guidance: Guidance,
    model: tuple[Any, Any, Any],
    settings: dict[str, Any],
    particles: int,
    groups: int,
    seed: int | Sequence[int] | Tensor,
    x_init: Tensor | None,
    tell: bool,
) -> Guidance:
    """Return the guidance with the temperature that its `AutoAlpha` asks for, found by unguided samples of the run's groups."""
    auto = guidance.alpha
    assert isinstance(auto, AutoAlpha)
    # Starting states that differ between particles fix how many there are.
    own = isinstance(x_init, Tensor) and x_init.ndim > 1 and len(x_init) in (particles, particles * groups)
    count = particles if own else max(16, auto.pilot // groups)
    apart = resolve_seeds(seed, groups) ^ _PILOT
    run = Run(
        *model, BestOfN(), particles=count, groups=groups, seed=apart, **settings
    )  # fmt: skip
    with torch.no_grad():
        pilot = run.sample()
    rewards = pilot.rewards.view(groups, -1)
    alpha = auto.find(rewards)
    if tell:
        kl, ess = (float(x.mean()) for x in divergence(rewards, alpha))
        print(
            f"alpha = {alpha:.4g} from {rewards.numel()} unguided samples: KL to the pretrained model {kl:.2f} nats, "
            f"ESS of unguided samples {100 * ess:.0f} %",
            file=sys.stderr,
        )
    return replace(guidance, alpha=alpha)  # type: ignore[type-var]
