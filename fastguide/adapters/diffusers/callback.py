"""The callback that a pipeline is called with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from fastguide.adapters.diffusers.hook import Hook, Step, with_sample
from fastguide.adapters.diffusers.run import Run
from fastguide.errors import BackendUnavailable
from fastguide.guidance.best_of_n import BestOfN
from fastguide.guidance.protocol import Driver, Guidance
from fastguide.ops._checks import choice, count

try:
    from diffusers.callbacks import PipelineCallback
except ImportError as error:
    raise BackendUnavailable("diffusers is not installed: pip install 'fastguide[images]'") from error

ENDS = ("resample", "sort", "keep")


class SteeringCallback(PipelineCallback):  # type: ignore[misc] # not followed into diffusers
    """Steers the images of a pipeline towards a reward.

    It composes with other callbacks (``MultiPipelineCallbacks([other, steer])``): what they do to the latents or to the
    conditions between two steps is part of the law that is steered. One object serves one call at a time, and any number in
    turn.

    Args:
        reward: a `fastguide.rewards.Reward`, or a callable from what ``decode`` gives to ``[n]`` numbers; −inf forbids a
            sample. A sequence gives each group its own.
        guidance: `fastguide.SMC`, `fastguide.SVDD`, `fastguide.BestOfN`, `fastguide.TDS` or the like.
        particles: N, of each prompt (``num_images_per_prompt``): the images of a call are G groups of N · M. None: one group.
        decode: what the reward sees: ``"image"``, float ``[n, C, H, W]`` in [0, 1], by the pipeline's VAE where it has one;
            ``"latent"``, as they are; or a function of latents.
        at_end: ``"resample"``, images of equal weight; ``"sort"``, the best first; ``"keep"``, as they are, to be weighed by
            `log_weights`. None sorts with `fastguide.BestOfN` and resamples otherwise.
        eta: of ``FlowMatchEulerDiscreteScheduler``: how much noise its flow gets, as that of `fastguide.GaussianProcess`.
        cutoff_step_ratio: the share of the steps after which guidance ends: no value is computed any more but the rewards.
        cutoff_step_index: the same as the number of a step; ``cutoff_step_ratio`` is None then.

    Raises:
        ValueError: in the call: a scheduler that cannot be steered; a number of images that is not G · N · M.
        RewardError: the reward raised, or returned NaN, +inf or the wrong shape.
        DegenerateWeights: every sample of a group has weight zero.
    """

    tensor_inputs = ["latents"]  # noqa: RUF012 - theirs is such a list

    def __init__(
        self,
        reward: Callable[..., Any] | Sequence[Callable[..., Any]],
        guidance: Guidance,
        *,
        particles: int | None = None,
        decode: str | Callable[[Tensor], Any] = "image",
        at_end: str | None = None,
        eta: float = 1.0,
        cutoff_step_ratio: float | None = 1.0,
        cutoff_step_index: int | None = None,
    ) -> None:
        super().__init__(cutoff_step_ratio, cutoff_step_index)
        if isinstance(guidance, Driver):
            raise TypeError(f"guidance: {type(guidance).__name__} runs the loop itself; use it with fg.sample")
        if isinstance(guidance, type) or not isinstance(guidance, Guidance):
            raise TypeError(f"guidance: expected fg.SMC(...), fg.SVDD(...) or the like, got {guidance!r}")
        if at_end is None:
            at_end = "sort" if isinstance(guidance, BestOfN) else "resample"
        choice("at_end", at_end, ENDS)
        self.at_end = at_end
        self.reward, self.guidance = reward, guidance
        self.particles = None if particles is None else count("particles", particles)
        if not callable(decode):
            choice("decode", decode, ("image", "latent"))
        if not eta > 0:
            raise ValueError(f"eta: expected a number above 0, without which a flow draws no noise, got {eta!r}")
        self.decode, self.eta = decode, float(eta)
        self._run: Run | None = None

    def callback_fn(
        self, pipeline: Any, step_index: int, timestep: Any, callback_kwargs: dict[str, Any]
    ) -> dict[str, Any]:
        """Take the latents after a step; the pipeline calls this."""
        try:
            callback_kwargs["latents"] = self._after(pipeline, step_index, timestep, callback_kwargs["latents"])
        except BaseException:
            if self._run is not None:
                self._run.close()
            raise
        self.run.hook()
        return callback_kwargs

    def _after(self, pipeline: Any, step_index: int, timestep: Any, latents: Tensor) -> Tensor:
        if step_index == 0:
            if self._run is not None:
                self._run.close()
            self._run = Run(self, pipeline, latents)
        return self.run.after(step_index, timestep, latents)

    @contextmanager
    def on(self, pipeline: Any) -> Iterator[SteeringCallback]:
        """Steer a pipeline that takes no callback, ``DDPMPipeline`` for example: ``with steer.on(pipe): pipe(...)``."""
        scheduler = pipeline.scheduler

        def step(take: Step, model_output: Tensor, timestep: Any, *args: Any, **options: Any) -> Any:
            at = int((scheduler.timesteps == timestep).nonzero()[0])
            if at == 0:
                taken = take(model_output, timestep, *args, **options)
            else:
                taken = self.run.step(take, model_output, timestep, *args, **options)
            return with_sample(taken, self._after(pipeline, at, timestep, taken[0]))

        hook = Hook(scheduler, step)
        try:
            yield self
        finally:
            hook.remove()

    @property
    def run(self) -> Run:
        """The last call, or the one under way."""
        if self._run is None:
            raise RuntimeError("SteeringCallback: no pipeline has been called with it yet")
        return self._run

    @property
    def rewards(self) -> Tensor:
        """``[G, N]`` float64 rewards of the images, in their order."""
        return self.run.rewards

    @property
    def log_weights(self) -> Tensor:
        """``[G, N]`` float64 log-weights of the images, in their order; equal within a group that was resampled."""
        return self.run.log_weights

    @property
    def log_normalizer(self) -> Tensor:
        """``[G]`` float64 estimates of ``log E_p[exp(r / alpha)]``; nan where the guidance gives none."""
        return self.run.steering.log_normalizer

    @property
    def ess(self) -> Tensor:
        """``[K, G]`` effective sample sizes of the K steps that weighed, before they resampled."""
        return torch.stack(self.run.ess)
