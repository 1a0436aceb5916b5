r"""Distillation: a network learns what guidance does, so that later runs need less of it.

A student ``p_θ`` of a masked process is fitted to a guided run by one of two weighted likelihoods,

    guided:    −Σ_n W_n log p_θ(x_0^n),    W the final weights of the group,
    per step:  −Σ_{n,m} w̄^{n,m} log p_θ(x^{n,m}_{t−1} | x_t^n),    w̄ ∝ [p/q] exp(v_{t−1}(child m of n) / alpha), Σ_m w̄ = 1.

The first is the student's own denoising loss, over random masks of clean samples, and as good as the run's samples. The
second is the divergence of p_θ from the soft-optimal policy, and as good as the values; it compares children (``branch ≥ 2``).

What comes out is biased like any fit. As a *proposal* it is not: ``fg.TDS(gradient=distilled)`` draws from p_θ and weighs each
child by ``p/q`` exactly, so the target stays that of the pretrained model, and weights are more even the better the fit.
``fg.ClassifierGuidance(gradient=distilled)`` draws from p_θ unweighted; the student itself is a denoiser for any guidance.

Source: Uehara et al., 2501.09685, section 9 (distillation of inference-time methods).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastguide.distill import losses
from fastguide.distill.recorder import Recorder
from fastguide.guidance.protocol import Guidance
from fastguide.memory import resolve_memory
from fastguide.ops._checks import choice, count
from fastguide.processes.masked import MaskedProcess
from fastguide.processes.protocol import Constraints
from fastguide.run import Run
from fastguide.states import States
from fastguide.values.network import Fit, train
from fastguide.values.posterior_mean import PosteriorMean

_HELD_OUT = 8
"""One particle in so many is held out."""


class Distill:
    """A student of guided runs, and the proposal that it makes.

    Args:
        student: an ``nn.Module`` from tokens ``[n, L]`` and noise levels ``[n]`` to finite logits ``[n, L, V]``, such as a copy
            of the pretrained network; it is trained in place.
        loss: ``"guided"`` or ``"per_step"``.
        roll_in: of ``"per_step"``, at whose states the student learns: ``"guided"``, or ``"base"`` for the pretrained model's.
    """

    def __init__(self, student: nn.Module, *, loss: str = "guided", roll_in: str = "guided") -> None:
        if not isinstance(student, nn.Module):
            raise TypeError(f"student: expected a torch.nn.Module to train, got {type(student).__name__}")
        choice("loss", loss, ("guided", "per_step"))
        choice("roll_in", roll_in, ("guided", "base"))
        self.student, self.loss, self.roll_in = student, loss, roll_in

    def __call__(self, states: States) -> Tensor:
        """Return ``alpha · (log p_θ − log p)`` ``[U, L, V]``, which guided proposals divide by alpha."""
        bound, process = states.scene.bound, losses.masked(states.scene.process)
        assert states.output is not None
        log_p = bound.log_probs(states.x, states.output, group=states.group)  # type: ignore[attr-defined]
        opened = bound.opened(states.x, group=states.group)  # type: ignore[attr-defined]
        t = states.scene.times(len(states.x), states.step, states.x.device)
        change = losses.log_probs(self.student(states.x, t), bound, process) - log_p
        return states.scene.alpha * torch.where(opened[..., None] & (log_p > -torch.inf), change, 0.0)

    def fit(
        self,
        process: MaskedProcess,
        denoiser: Any,
        reward: Any,
        guidance: Guidance,
        *,
        value: Any = None,
        particles: int = 4096,
        epochs: int = 20,
        batch: int = 256,
        rate: float = 2e-3,
        seed: int = 0,
        **options: Any,
    ) -> Fit:
        """Run ``guidance`` once and fit the student to it; the same seed fits the same student.

        ``options`` are ``x_init``, ``frozen``, ``bias``, ``lengths``, ``groups``, ``condition``, ``decode`` and ``memory``, as
        for `fastguide.sample`. Call it again, with ``fg.TDS(gradient=self)`` say, to go on from what the student knows.
        """
        losses.masked(process)
        epochs, batch = count("epochs", epochs), count("batch", batch)
        if guidance.alpha == 0:
            raise ValueError("guidance: at alpha = 0 there are no weights to learn from; give alpha > 0")
        if self.loss == "per_step" and guidance.branch < 2:
            raise ValueError(
                f'guidance: loss="per_step" compares the children of a parent, and {type(guidance).__name__} has one; take '
                'SVDD or NestedSMC, or loss="guided"'
            )
        recorder = Recorder(guidance, base=self.roll_in == "base" and self.loss == "per_step")
        constraints = Constraints(*(options.pop(name, None) for name in ("x_init", "frozen", "bias", "lengths")))
        chosen = {name: options.pop(name, None) for name in ("condition", "decode")}
        groups, memory = options.pop("groups", 1), resolve_memory(options.pop("memory", "auto"))
        if options:
            raise TypeError(f"fit: unknown argument {', '.join(options)}")
        run = Run(
            process, denoiser, reward, recorder, value=value or PosteriorMean(), particles=particles, groups=groups,
            constraints=constraints, seed=seed, memory=memory, budget=None, device=torch.device("cpu"), progress=False,
            callback=None, **chosen,
        )  # fmt: skip
        run.history, run.offspring = [], []
        with torch.no_grad():
            result = run.sample()
        generator = torch.Generator().manual_seed(seed)
        steps, rows, held = process.steps, len(result.samples), len(result.samples) // _HELD_OUT
        if self.loss == "guided":
            weights = torch.softmax(result.log_weights.view(result.groups, -1), 1).flatten() * result.particles
            loss_of = losses.guided(self.student, run, result.samples, weights.nan_to_num(0.0).float(), generator)
        else:
            weights = torch.stack(recorder.weights).flatten(1, 2)
            loss_of = losses.per_step(self.student, run, weights.nan_to_num(0.0).float())

        def batches(generator: torch.Generator) -> list[Tensor]:
            order = held * steps + torch.randperm((rows - held) * steps, generator=generator)
            return list(torch.split(order, batch))

        seen, left_out = train(
            self.student, batches, loss_of, lambda: loss_of(torch.arange(held * steps)), epochs=epochs, rate=rate,
            generator=generator,
        )  # fmt: skip
        return Fit(seen, left_out, float(result.rewards[result.rewards > -torch.inf].std()))
