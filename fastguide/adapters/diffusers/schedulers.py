"""What the schedulers of ``diffusers`` do in a step, read from them before they do it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from fastguide.processes import samplers
from fastguide.processes.gaussian import estimate
from fastguide.processes.samplers import Step

_PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_LEAST_NOISE = 1e-6
"""Steps with less are steps without: where theirs would have none they put 1e-10, which no float32 can tell of a state."""


@dataclass(frozen=True)
class Reading:
    """One step of a scheduler, from the level ``x = alpha x_0 + sigma eps`` on.

    Attributes:
        alpha: signal. sigma: noise of the states before the step.
        clean: ``(sample, model_output) -> x̂0`` float32, clipped as the scheduler does.
        mean: ``(sample, model_output) ->`` the mean of the states after it, float32; None where it is not known.
        noise: standard deviation of the step; 0 where it draws nothing.
        drawn: whether the scheduler draws the step itself; else it is to be drawn from ``mean`` and ``noise``.
    """

    alpha: float
    sigma: float
    clean: Callable[[Tensor, Tensor], Tensor]
    mean: Callable[[Tensor, Tensor], Tensor] | None
    noise: float
    drawn: bool = True


def check(scheduler: Any) -> None:
    """Raise unless this scheduler's steps can be read and draw noise, as far as can be told before a step."""
    name = type(scheduler).__name__
    if _reader(scheduler) is None:
        raise ValueError(
            f"scheduler: {name} is deterministic, or of several stages or unknown, and cannot be steered: copies of a "
            f"particle would stay copies, or its state would not follow. Take one of {', '.join(_READERS)} "
            f'("from_config" makes one of another), or fg.BestOfN'
        )
    config = scheduler.config
    if name == "DPMSolverMultistepScheduler" and config.algorithm_type != "sde-dpmsolver++":
        raise ValueError(
            f"scheduler: {name} with algorithm_type {config.algorithm_type!r} draws no noise or predicts none of x0; take "
            '"sde-dpmsolver++"'
        )
    if getattr(config, "invert_sigmas", False):
        raise ValueError(f"scheduler: {name} with invert_sigmas is not supported")
    if getattr(config, "variance_type", None) == "fixed_large_log":
        raise ValueError(f'scheduler: {name} takes the root of a negative number for variance_type "fixed_large_log"')


def read(scheduler: Any, timestep: Any, options: Mapping[str, Any], eta: float) -> Reading:
    """Return what the step at ``timestep`` with these arguments of ``step`` will do; ``eta`` is that of flows."""
    reader = _reader(scheduler)
    assert reader is not None
    return reader(scheduler, timestep, options, eta)


def remembered(scheduler: Any) -> list[Tensor | None]:
    """Return the list of tensors, one row a particle, that a scheduler keeps from step to step: the list itself."""
    outputs: list[Tensor | None] = getattr(scheduler, "model_outputs", [])
    return outputs


def _clip(scheduler: Any) -> Callable[[Tensor], Tensor]:
    config = scheduler.config
    if getattr(config, "thresholding", False):
        threshold: Callable[[Tensor], Tensor] = scheduler._threshold_sample
        return threshold
    if getattr(config, "clip_sample", False):
        reach = float(config.clip_sample_range)
        return lambda x0: x0.clamp(-reach, reach)
    return lambda x0: x0


def _linear(
    scheduler: Any, prediction: str, a: float, s: float, step: Step, of_clipped: float | None = None, drawn: bool = True
) -> Reading:
    """Return the reading of ``x' = x · x_coefficient + x̂0 · x0_coefficient + noise``.

    ``of_clipped``: the coefficient of what clipping adds to x̂0, that of x̂0 where None.
    """
    p, q = estimate(prediction, a, s)
    clip = _clip(scheduler)
    extra = step.x0_coefficient if of_clipped is None else of_clipped

    def raw(x: Tensor, output: Tensor) -> Tensor:
        output = output[:, : x.shape[1]].float()  # schedulers of a learned variance find it in further channels
        return output * q if p == 0.0 else x.float() * p + output * q

    def mean(x: Tensor, output: Tensor) -> Tensor:
        x0 = raw(x, output)
        return x.float() * step.x_coefficient + x0 * step.x0_coefficient + (clip(x0) - x0) * extra

    noise = step.noise if step.noise > _LEAST_NOISE else 0.0
    return Reading(a, s, lambda x, output: clip(raw(x, output)), mean, noise, drawn)


def _prediction(scheduler: Any) -> str:
    return _PREDICTIONS[scheduler.config.prediction_type]


def _preserving(scheduler: Any, timestep: Any) -> tuple[float, float]:
    """Return (alpha, sigma) of a scheduler whose levels are ``alphas_cumprod``."""
    bar = float(scheduler.alphas_cumprod[int(timestep)])
    return math.sqrt(bar), math.sqrt(1.0 - bar)


def _ddpm(scheduler: Any, timestep: Any, options: Mapping[str, Any], eta: float) -> Reading:
    a, s = _preserving(scheduler, timestep)
    following = int(scheduler.previous_timestep(timestep))
    a_next, s_next = (1.0, 0.0) if following < 0 else _preserving(scheduler, following)
    step, kind = samplers.ddpm(a, s, a_next, s_next, "small"), scheduler.variance_type
    if kind in ("learned", "learned_range"):
        return replace(_linear(scheduler, _prediction(scheduler), a, s, step), mean=None, noise=math.nan)
    noise = 0.0
    if int(timestep) > 0:
        noise = float(scheduler._get_variance(timestep))
        noise = noise if kind == "fixed_small_log" else math.sqrt(noise)
    return _linear(scheduler, _prediction(scheduler), a, s, step._replace(noise=noise))


def _ddim(scheduler: Any, timestep: Any, options: Mapping[str, Any], eta: float) -> Reading:
    share = float(options.get("eta") or 0.0)
    if share == 0.0:
        raise ValueError(
            f"eta: {type(scheduler).__name__} is deterministic at eta = 0, so that copies of a particle would stay copies; "
            "call the pipeline with eta=1.0 (or another number in (0, 1]), or take fg.BestOfN"
        )
    a, s = _preserving(scheduler, timestep)
    following = int(timestep) - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    if following >= 0:
        a_next, s_next = _preserving(scheduler, following)
    else:
        bar = float(scheduler.final_alpha_cumprod)
        a_next, s_next = math.sqrt(bar), math.sqrt(1.0 - bar)
    step = samplers.ddim(a, s, a_next, s_next, share)
    # Unless told otherwise it clips x̂0 and leaves the noise that goes with it as it was.
    of_clipped = None if options.get("use_clipped_model_output") else a_next
    return _linear(scheduler, _prediction(scheduler), a, s, step, of_clipped)


def _euler_ancestral(scheduler: Any, timestep: Any, options: Mapping[str, Any], eta: float) -> Reading:
    s, s_next = _two_sigmas(scheduler)
    return _linear(scheduler, _prediction(scheduler), 1.0, s, samplers.ddpm(1.0, s, 1.0, s_next, "small"))


def _flow(scheduler: Any, timestep: Any, options: Mapping[str, Any], eta: float) -> Reading:
    if options.get("per_token_timesteps") is not None:
        raise ValueError(f"scheduler: {type(scheduler).__name__} with per_token_timesteps is not supported")
    s, s_next = _two_sigmas(scheduler)
    own = scheduler.config.stochastic_sampling
    if own:
        step = Step(0.0, 1.0 - s_next, s_next)
    else:
        step = samplers.flow(1.0 - s, s, 1.0 - s_next, s_next, eta)
    return _linear(scheduler, "velocity", 1.0 - s, s, step, drawn=own)


def _dpm_solver(scheduler: Any, timestep: Any, options: Mapping[str, Any], eta: float) -> Reading:
    a, s = (float(v) for v in scheduler._sigma_to_alpha_sigma_t(scheduler.sigmas[scheduler.step_index]))

    def clean(x: Tensor, output: Tensor) -> Tensor:
        x0: Tensor = scheduler.convert_model_output(output, sample=x)
        return x0.float()

    return Reading(a, s, clean, None, math.nan)


def _two_sigmas(scheduler: Any) -> tuple[float, float]:
    at = scheduler.step_index
    return float(scheduler.sigmas[at]), float(scheduler.sigmas[at + 1])


_READERS: dict[str, Callable[[Any, Any, Mapping[str, Any], float], Reading]] = {
    "DDPMScheduler": _ddpm,
    "DDIMScheduler": _ddim,
    "EulerAncestralDiscreteScheduler": _euler_ancestral,
    "FlowMatchEulerDiscreteScheduler": _flow,
    "DPMSolverMultistepScheduler": _dpm_solver,
}


def _reader(scheduler: Any) -> Callable[[Any, Any, Mapping[str, Any], float], Reading] | None:
    """Return the reader of a scheduler or of the class that it is derived from."""
    names = [kind.__name__ for kind in type(scheduler).__mro__]
    return next((_READERS[name] for name in names if name in _READERS), None)
