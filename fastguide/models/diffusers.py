"""Networks of the ``diffusers`` package as denoisers, with the process that they were trained for.

`fastguide.adapters.diffusers` steers their pipelines as they stand; this runs their networks in our own loop, with all that
`fastguide.sample` offers.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastguide.models.protocol import Denoiser, Prediction, State
from fastguide.processes.gaussian import GaussianProcess

_PREDICTIONS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
_SAMPLERS = {"DDPMScheduler": "ddpm", "DDIMScheduler": "ddim", "EulerAncestralDiscreteScheduler": "ddpm"}
"""Euler's ancestral step is that of DDPM in states divided by alpha."""
_FLOW = "FlowMatchEulerDiscreteScheduler"


def from_diffusers(
    model: Any, scheduler: Any, *, steps: int = 50, eta: float | None = None
) -> tuple[GaussianProcess, DiffusersModel]:
    """Return the process that a scheduler's configuration describes, and the network as its denoiser.

    Args:
        model: ``UNet2DModel``, ``UNet2DConditionModel``, ``DiTTransformer2DModel`` or the like: called with states and
            timesteps, and with ``encoder_hidden_states`` where a group has a condition; in evaluation mode.
        scheduler: ``DDPMScheduler``, ``DDIMScheduler``, ``EulerAncestralDiscreteScheduler`` or
            ``FlowMatchEulerDiscreteScheduler``, of which the schedule, the prediction and the clipping are taken.
        steps: reverse steps T, at levels spaced as by ``timestep_spacing="trailing"``.
        eta: of ``DDIMScheduler`` and of flows, how much fresh noise; 1 where None.

    Raises:
        ValueError: a scheduler that is none of these, or has settings that no `fastguide.GaussianProcess` has.
    """
    config, size = scheduler.config, model.config.sample_size
    name = type(scheduler).__name__
    if name not in (*_SAMPLERS, _FLOW):
        raise ValueError(f"scheduler: expected one of {', '.join((*_SAMPLERS, _FLOW))}, got {name}")
    if getattr(config, "thresholding", False) or getattr(config, "invert_sigmas", False):
        raise ValueError(f"scheduler: {name} with thresholding or invert_sigmas has no process of ours")
    shape = (int(model.config.in_channels), *((size, size) if isinstance(size, int) else size))
    if name == _FLOW:
        if config.use_dynamic_shifting:
            raise ValueError("scheduler: use_dynamic_shifting depends on the size of the image; set shift instead")
        levels = [1.0 - k / steps for k in range(steps)]
        shift = float(scheduler.shift)
        sigmas = [shift * s / (1.0 + (shift - 1.0) * s) for s in levels]
        process = GaussianProcess(shape, steps, "velocity", "flow", "flow", [*sigmas, 0.0], eta=eta)
        told = torch.tensor(sigmas) * config.num_train_timesteps
        return process, DiffusersModel(model, process, told)
    variance = getattr(config, "variance_type", None) or "fixed_small"
    if variance not in ("fixed_small", "fixed_small_log", "fixed_large"):
        raise ValueError(
            f"scheduler: variance_type {variance!r} has no process of ours; take 'fixed_small' or 'fixed_large'"
        )
    sampler = _SAMPLERS[name]
    process = GaussianProcess(
        shape, steps, _PREDICTIONS[config.prediction_type], sampler, scheduler.alphas_cumprod,
        eta=eta if sampler == "ddim" else None, variance="large" if variance == "fixed_large" else "small",
        clip_x0=float(config.clip_sample_range) if getattr(config, "clip_sample", False) else None,
    )  # fmt: skip
    assert process.timesteps is not None
    return process, DiffusersModel(model, process, torch.tensor(process.timesteps))


class DiffusersModel(Denoiser):
    """A network of ``diffusers``; see `from_diffusers`.

    The condition of a group is what the network takes as ``encoder_hidden_states``, ``[tokens, width]``; None calls it without.
    """

    def __init__(self, model: Any, process: GaussianProcess, timesteps: Tensor) -> None:
        if model.training:
            raise ValueError("model: it is in training mode, in which its output is random; call model.eval()")
        self.model, self.process, self._timesteps = model, process, timesteps

    def init(self, n: int, condition: Any = None) -> State:
        """Return the condition, once a particle."""
        return None if condition is None else condition.expand(n, *condition.shape)

    def __call__(self, x: Tensor, t: Tensor, state: State = None, rows: Tensor | None = None) -> Prediction:
        """Predict what the scheduler's ``prediction_type`` says."""
        self._timesteps = self._timesteps.to(x.device)
        told = self._timesteps.index_select(0, self.process.step_of(t))
        dtype = getattr(self.model, "dtype", x.dtype)
        options = {}
        if state is not None:
            options["encoder_hidden_states"] = (state if rows is None else state[rows]).to(dtype)
        output = self.model(x.to(dtype), told, **options).sample
        # A variance that was learned comes in further channels.
        return Prediction(output[:, : x.shape[1]].float(), state if rows is None or state is None else state[rows])
