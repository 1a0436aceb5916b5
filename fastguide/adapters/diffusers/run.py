"""One call of a pipeline: weigh, select and move between the network and the scheduler's step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from fastguide import ops
from fastguide.adapters._seeds import generator_seed, seed_of_bits, torch_seed
from fastguide.adapters.diffusers import schedulers
from fastguide.adapters.diffusers.decode import decoder
from fastguide.adapters.diffusers.hook import Hook, Step, with_sample
from fastguide.adapters.diffusers.schedulers import Reading
from fastguide.errors import DegenerateWeights
from fastguide.guidance.gradients import GradientProposal
from fastguide.guidance.protocol import Guidance, guidance_at, proposal_of, reads_values
from fastguide.rewards.calls import RewardCalls
from fastguide.rewards.protocol import wrap
from fastguide.steering import Steering, resolve_seeds
from fastguide.values.protocol import mend_broken

if TYPE_CHECKING:
    from fastguide.adapters.diffusers.callback import SteeringCallback


class Run:
    """What `SteeringCallback` keeps during a call of a pipeline, and after it.

    Args:
        settings: the callback.
        pipeline: what calls it.
        latents: after the first step.

    Attributes:
        steering: weights and values.
        rewards: ``[G, N]`` float64 rewards of the samples, once there are some.
        log_weights: ``[G, N]`` float64 log-weights of the samples.
        ess: ``[G]`` effective sample sizes, one entry a step that weighed.
    """

    def __init__(self, settings: SteeringCallback, pipeline: Any, latents: Tensor) -> None:
        self._settings, self._scheduler = settings, pipeline.scheduler
        self._steps = int(getattr(pipeline, "num_timesteps", None) or len(pipeline.scheduler.timesteps))
        self._guidance = guidance = _unread_at_noise(settings.guidance, self._steps)
        config: Any = settings.config
        ratio, index = config.cutoff_step_ratio, config.cutoff_step_index
        self._cutoff = index if index is not None else int(self._steps * ratio)
        self._proposals = [_proposal(guidance, step) for step in range(self._steps)]
        self._branch = _branch(guidance, self._steps)
        self._rows = len(latents)
        particles = settings.particles or max(1, self._rows // self._branch)
        groups, rest = divmod(self._rows, particles * self._branch)
        if rest or not groups:
            raise ValueError(
                f"latents: {self._rows} images are not a multiple of particles N × branch M = {particles} × {self._branch}; "
                "call the pipeline with num_images_per_prompt = N × M"
            )
        self.steering = Steering(guidance, particles=particles, groups=groups, device=latents.device)
        self.steering.begin()
        looks = any(reads_values(guidance, step) for step in range(1, self._steps))
        self._weighs = self._steps > 1 and (looks or any(self._proposals) or self._branch > 1)
        if self._weighs:
            schedulers.check(self._scheduler)
        self._decode = decoder(pipeline, settings.decode)
        rewards = settings.reward if isinstance(settings.reward, Sequence) else [settings.reward]
        if len(rewards) not in (1, groups):
            raise ValueError(f"reward: expected one, or one for each of the {groups} groups, got {len(rewards)}")
        self._calls = [RewardCalls(wrap(r), self._decode, 1, ragged=True, merge=False) for r in rewards]
        self._hook: Hook | None = None
        self._taken, self._stepped, self._last_time = 0, False, math.inf
        self._seeded = False
        self._grad_mode: bool | None = None
        self._log_ratio: Tensor | None = None
        self.rewards = self.log_weights = torch.empty((groups, particles), dtype=torch.float64, device=latents.device)
        self.ess: list[Tensor] = []

    def hook(self) -> None:
        """Take the scheduler's steps from now on, until the samples are there or a step comes out of turn."""
        if self._weighs and self._hook is None:
            self._hook = Hook(self._scheduler, self.step)

    def close(self) -> None:
        """Give the scheduler its own step back."""
        if self._hook is not None:
            self._hook.remove()

    def after(self, step_index: int, timestep: Any, latents: Tensor) -> Tensor:
        """Take the latents after a step, and return those that the pipeline goes on with."""
        if len(latents) != self._rows:
            raise ValueError(f"latents: {len(latents)} rows after {step_index + 1} steps, {self._rows} after the first")
        if step_index > 0 and self._weighs and not self._stepped:
            raise RuntimeError(
                f"SteeringCallback: no step of {type(self._scheduler).__name__} was seen between callbacks "
                f"{step_index - 1} and {step_index}; this pipeline does not step once between two callbacks, with falling "
                "timesteps, and cannot be steered"
            )
        self._taken, self._stepped, self._last_time = step_index + 1, False, float(timestep)
        if self._taken == self._steps:
            self.close()
            return self._finish(latents)
        proposal = self._proposal()
        return self._record(latents) if proposal is not None and proposal.gradient != "decoded" else latents

    def step(self, take: Step, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **options: Any) -> Any:
        """Weigh the states that the network has just seen, select among them, and let the scheduler take its step."""
        if self._stepped or float(timestep) >= self._last_time:
            # An earlier call was interrupted; this is another's.
            self.close()
            return take(model_output, timestep, sample, *args, **options)
        self._stepped = True
        try:
            return self._guide(take, model_output, timestep, sample, args, options)
        except BaseException:
            self.close()
            raise

    def _guide(
        self,
        take: Step,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        args: tuple[Any, ...],
        options: dict[str, Any],
    ) -> Any:
        given = inspect.signature(take).bind(model_output, timestep, sample, *args, **options).arguments
        if not self._seeded:
            self._seed(given, sample)
        reading = schedulers.read(self._scheduler, timestep, given, self._settings.eta)
        time = float(timestep) / float(self._scheduler.config.num_train_timesteps)
        values, shift = self._look(reading, sample, model_output, time)
        s = self.steering
        s.weigh(values, self._log_ratio)
        s.select()
        self.ess.append(s.state.ess)
        sample, model_output, shift = self._move(sample, model_output, shift)
        return self._take(take, reading, model_output, timestep, sample, shift, args, options)

    def _look(
        self, reading: Reading, sample: Tensor, output: Tensor, time: float
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the values of states ``[G, N * M]``, where they are read, and the shift of the step that follows."""
        s, proposal = self.steering, self._proposal()
        previous = s.state.values.repeat_interleave(self._branch, dim=1)
        reads = s.reads_values(self._taken)
        if reads and self._taken > self._cutoff:
            return previous, None
        shift = rewards = None
        if proposal is not None:
            if reading.mean is None:
                raise ValueError(
                    f"guidance: {type(self._guidance).__name__} needs the mean of a step, which "
                    f"{type(self._scheduler).__name__} with these settings does not tell; use fg.SMC or fg.SVDD"
                )
            rewards, gradient = self._differentiate(reading, sample, output, proposal)
            if reading.noise > 0.0:
                gradient = proposal.limited(gradient.float().contiguous(), time)
                shift = gradient * (proposal.strength(time) * reading.noise**2 / proposal.alpha)
        if not reads:
            return None, shift
        if rewards is None:
            rewards = self._rewards(reading.clean(sample, output).to(sample.dtype))
        return mend_broken(rewards.view(s.groups, -1), previous), shift

    def _differentiate(
        self, reading: Reading, sample: Tensor, output: Tensor, proposal: GradientProposal
    ) -> tuple[Tensor, Tensor]:
        """Return rewards ``[G * N]`` and their gradients in the states."""
        if proposal.gradient == "decoded":
            x0 = reading.clean(sample, output).to(sample.dtype)
            with torch.inference_mode(False), torch.enable_grad():
                x0 = x0.clone().requires_grad_()
                rewards = self._soft_rewards(x0)
                (gradient,) = torch.autograd.grad(rewards.sum(), x0)
            a, s = reading.alpha, reading.sigma
            return rewards.detach(), gradient * (a / (a * a + s * s))
        grad_mode, self._grad_mode = self._grad_mode, None
        assert grad_mode is not None
        try:
            if not output.requires_grad or not sample.requires_grad:
                raise TypeError(
                    "guidance: no gradient flows through the pipeline from one callback to the next step (another callback "
                    'after this one detached the latents, or the network runs under torch.no_grad); use gradient="decoded"'
                )
            rewards = self._soft_rewards(reading.clean(sample, output).to(sample.dtype))
            return rewards.detach(), torch.autograd.grad(rewards.sum(), sample)[0]
        finally:
            torch.set_grad_enabled(grad_mode)

    def _take(
        self, take: Step, reading: Reading, output: Tensor, timestep: Any, sample: Tensor, shift: Tensor | None,
        args: tuple[Any, ...], options: dict[str, Any],
    ) -> Any:  # fmt: skip
        """Let the scheduler take its step, or draw it for one that draws none, and shift what comes."""
        taken = take(output, timestep, sample, *args, **options)
        drawn: Tensor = taken[0]
        self._log_ratio = None
        if reading.drawn and shift is None:
            return taken
        assert reading.mean is not None
        mean = reading.mean(sample, output)
        if not reading.drawn:
            drawn = ops.gaussian_step(
                mean, mean, x_coefficient=1.0, prediction_coefficient=0.0, sigma=reading.noise, seed=self.steering.seeds,
                step=self._taken,
            )[:, 0].to(drawn.dtype)  # fmt: skip
        if shift is not None:
            drawn = (drawn + shift).to(drawn.dtype)
            proposal = self._proposal()
            if proposal is not None and proposal.corrected:
                self._log_ratio = ops.gaussian_log_ratio(
                    drawn.float()[:, None], mean, mean, x_coefficient=1.0, prediction_coefficient=0.0, sigma=reading.noise,
                    shift=shift,
                )  # fmt: skip
        return with_sample(taken, drawn)

    def _move(self, sample: Tensor, output: Tensor, shift: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return what belongs to the survivors, each as often as it has children, and move what the scheduler remembers."""
        state = schedulers.remembered(self._scheduler)
        kept = [i for i, tensor in enumerate(state) if tensor is not None]
        tensors = [sample.detach(), output.detach(), *(state[i] for i in kept), *([] if shift is None else [shift])]
        moved = [t.repeat_interleave(self._branch, dim=0) for t in self.steering.move(tensors)]
        for place, i in enumerate(kept):
            state[i] = moved[2 + place]
        return moved[0], moved[1], None if shift is None else moved[-1]

    def _finish(self, latents: Tensor) -> Tensor:
        """Weigh by the rewards of the last latents and return N of each group."""
        s = self.steering
        if not self._seeded:
            self._seed({}, latents)
        s.finish(self._rewards(latents), self._log_ratio)
        s.select()
        self.ess.append(s.state.ess)
        latents, self.rewards, self.log_weights = s.move(latents), s.state.values, s.log_weights
        dead = (self.log_weights == -torch.inf).all(dim=1).nonzero().flatten().tolist()
        if dead:
            raise DegenerateWeights(
                f"reward: every sample of group {', '.join(map(str, dead))} has weight zero; use more particles, a larger "
                "alpha or another reward",
                tuple(dead),
            )
        if self._settings.at_end == "keep":
            return latents
        if self._settings.at_end == "sort":
            order = self.rewards.argsort(dim=1, descending=True, stable=True)
            self.log_weights = self.log_weights.gather(1, order)
        else:
            drawn = ops.select(self.log_weights, order="slots", seed=s.seeds, step=s.state.step)
            order = drawn.ancestors.to(torch.int64)
            self.log_weights = drawn.log_mean_weight[:, None].expand_as(order)
        self.rewards = self.rewards.gather(1, order)
        return ops.move(latents, order)

    def _record(self, latents: Tensor) -> Tensor:
        """Have autograd record what the pipeline does with the latents until its next step."""
        if torch.is_inference_mode_enabled():
            raise ValueError(
                f"guidance: {type(self._guidance).__name__} follows gradients through the network, which "
                'torch.inference_mode() rules out; call the pipeline without it, or give gradient="decoded"'
            )
        self._grad_mode = torch.is_grad_enabled()
        torch.set_grad_enabled(True)
        # A copy, because what comes after may write into its latents, which a leaf would forbid.
        return latents.detach().requires_grad_().clone()

    def _proposal(self) -> GradientProposal | None:
        """Return what guides the step to come, if anything does."""
        return self._proposals[self._taken] if self._taken <= self._cutoff else None

    def _rewards(self, x0: Tensor) -> Tensor:
        """Return ``[G * N * M]`` float64 rewards of latents."""
        return torch.cat([calls(x) for calls, x in zip(self._calls, x0.chunk(len(self._calls)), strict=True)])

    def _soft_rewards(self, x0: Tensor) -> Tensor:
        parts = zip(self._calls, x0.chunk(len(self._calls)), strict=True)
        return torch.cat([calls.soft(self._decode(x), tokens=False) for calls, x in parts])

    def _seed(self, given: Mapping[str, Any], latents: Tensor) -> None:
        """Take the seed of selections from where the pipeline's own random numbers come from."""
        if given.get("generator") is not None:
            seed = generator_seed(given["generator"])
        else:
            seed = torch_seed() if "generator" in given else seed_of_bits(latents)
        self.steering.seeds = resolve_seeds(seed, self.steering.groups, latents.device)
        self._seeded = True


def _unread_at_noise(guidance: Guidance, steps: int) -> Guidance:
    """Return guidance that counts on no value at t = 1, where the pipeline has not called back yet."""
    if "value_steps" not in inspect.signature(type(guidance)).parameters:
        return guidance
    steps_read = [s for s in range(1, steps) if reads_values(guidance, s)]
    return cast(Guidance, replace(cast(Any, guidance), value_steps=steps_read))


def _branch(guidance: Guidance, steps: int) -> int:
    found = {guidance_at(guidance, step).branch for step in range(steps)}
    if len(found) > 1:
        raise ValueError(f"guidance: a pipeline has one number of images; branch changes among {sorted(found)}")
    return int(found.pop())


def _proposal(guidance: Guidance, step: int) -> GradientProposal | None:
    proposal = proposal_of(guidance_at(guidance, step))
    if proposal is None:
        return None
    if not isinstance(proposal, GradientProposal) or proposal.gradient not in (None, "through", "decoded"):
        raise ValueError(
            f'guidance: a pipeline can be guided by gradient="through" or "decoded", not by '
            f"{getattr(proposal, 'gradient', type(proposal).__name__)!r}"
        )
    return proposal
