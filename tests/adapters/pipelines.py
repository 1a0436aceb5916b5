"""Stock pipelines of ``diffusers`` around the exact denoiser of a mixture of normals, and the exact law of what they draw."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace

import torch
from diffusers import ConfigMixin, DDPMPipeline, ModelMixin, StableDiffusion3Pipeline, StableDiffusionPipeline
from diffusers.configuration_utils import register_to_config
from torch import Tensor

from tests.oracle.gaussian import Mixture, Moments, reward

STEPS = 12


class MixtureNetwork(ModelMixin, ConfigMixin):
    """Predicts the noise in one number, or its velocity (``flow``), exactly; the condition is by how much data are moved."""

    @register_to_config
    def __init__(self, sample_size: int = 1, in_channels: int = 1, time_cond_proj_dim: int | None = None, flow: bool = False,
                 out_channels: int = 1, patch_size: int = 1, prediction: str = "epsilon") -> None:  # fmt: skip
        super().__init__()
        self.anything = torch.nn.Parameter(torch.zeros(1))
        betas = torch.linspace(0.0001, 0.02, 1000, dtype=torch.float32)
        bar = torch.cumprod(1 - betas, 0).double()
        self.sigmas = ((1 - bar) / bar).sqrt()
        self.rows = 0

    def forward(
        self, sample=None, timestep=None, encoder_hidden_states=None, return_dict=True, hidden_states=None, **_
    ):
        x = sample if sample is not None else hidden_states
        self.rows += len(x)
        t = torch.as_tensor(timestep).double().flatten()[0]
        if self.config.flow:
            a, s = 1 - t / 1000, t / 1000
        else:
            low = t.floor().long().clamp(max=998)
            sigma = torch.lerp(self.sigmas[low], self.sigmas[low + 1], t - low)
            a, s = 1 / (1 + sigma**2).sqrt(), sigma / (1 + sigma**2).sqrt()
        moved = 0.0 if encoder_hidden_states is None else encoder_hidden_states[:, 0, 0].view(-1, 1, 1, 1).double()
        x0 = moved + Mixture(None).posterior_mean(x.double() - a * moved, float(a), float(s))
        eps = (x.double() - a * x0) / s
        kind = "flow" if self.config.flow else self.config.prediction
        out = {"flow": eps - x0, "epsilon": eps, "sample": x0, "v_prediction": a * eps - s * x0}[kind]
        out = out.to(x.dtype) + self.anything.to(x.dtype)
        return SimpleNamespace(sample=out) if return_dict else (out,)


def pays(latents: Tensor) -> Tensor:
    return reward(latents.flatten(1))


def stable_diffusion(scheduler, **network) -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline(
        vae=None, text_encoder=None, tokenizer=None, unet=MixtureNetwork(**network), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def unconditional(scheduler, kind=DDPMPipeline, **network):
    pipe = kind(unet=MixtureNetwork(**network), scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def stable_diffusion_3(scheduler) -> StableDiffusion3Pipeline:
    nothing = dict.fromkeys(
        ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")
    )
    pipe = StableDiffusion3Pipeline(transformer=MixtureNetwork(flow=True), scheduler=scheduler, **nothing)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def call(pipe, n: int, steering, prompts: tuple[float, ...] = (0.0,), guidance_scale: float = 1.0, **options) -> Tensor:
    """Return the latents ``[G * n, 1]`` that a pipeline draws for prompts that move the data by so much."""
    embeds = torch.tensor(prompts).view(-1, 1, 1).repeat(1, 2, 4)
    more = {}
    if isinstance(pipe, StableDiffusion3Pipeline):
        embeds, n = embeds.repeat_interleave(n, 0), 1  # it repeats none that are given
        pooled = embeds[:, 0]
        more = {"pooled_prompt_embeds": pooled, "negative_pooled_prompt_embeds": pooled}
    if "timesteps" not in options and "sigmas" not in options:
        options["num_inference_steps"] = options.get("num_inference_steps", STEPS)
    out = pipe(
        prompt_embeds=embeds, negative_prompt_embeds=0 * embeds, num_images_per_prompt=n, guidance_scale=guidance_scale,
        output_type="latent", height=8, width=8, callback_on_step_end=steering, **more, **options,
    )  # fmt: skip
    return out.images.flatten(1)


def law(
    scheduler, network: Callable[[Tensor, Tensor], Tensor], options: dict | None = None, points: int = 601, **timesteps
) -> tuple[Tensor, Tensor]:
    """Return clean samples and their probabilities under a scheduler's own steps, by transfer matrices on a grid.

    What a step does is found by taking it twice with known noise: its mean and its standard deviation follow.
    """
    timesteps = timesteps or {"num_inference_steps": STEPS}
    twins = [copy.deepcopy(scheduler) for _ in range(2)]
    for twin in twins:
        twin.set_timesteps(**timesteps)
    spread = float(twins[0].init_noise_sigma)
    x = torch.linspace(-12, 12, points, dtype=torch.float64) * max(1.0, spread)
    p = torch.exp(-0.5 * (x / spread) ** 2)
    levels = getattr(twins[0], "sigmas", None)
    for index, t in enumerate(twins[0].timesteps):
        state = x.view(-1, 1, 1, 1)
        output = network(twins[0].scale_model_input(state, t), t)
        twins[1].scale_model_input(state, t)
        seeds = [torch.Generator().manual_seed(k) for k in range(2)]
        z = [torch.randn(state.shape, generator=g, dtype=torch.float64) for g in seeds]
        seeds = [torch.Generator().manual_seed(k) for k in range(2)]
        after = [
            twin.step(output, t, state, generator=g, **(options or {})).prev_sample.double()
            for twin, g in zip(twins, seeds, strict=True)
        ]
        noise = float(((after[0] - after[1]) / (z[0] - z[1])).median())
        mean = (after[0] - noise * z[0]).flatten()
        scale = 1.0 if levels is None else max(1.0, float(levels[index + 1]))
        x, p = transfer(p, mean, noise, scale, points)
    return x, p / p.sum()


def transfer(p: Tensor, mean: Tensor, noise: float, scale: float, points: int) -> tuple[Tensor, Tensor]:
    """Return the grid and the probabilities after a step."""
    if noise < 1e-6:
        return mean, p
    grid = torch.linspace(-12, 12, points, dtype=torch.float64) * scale
    kernel = torch.exp(-0.5 * ((grid - mean[:, None]) / noise) ** 2)
    return grid, p @ (kernel / kernel.sum(1, keepdim=True).clamp_min(1e-300))


def target(x: Tensor, p: Tensor, alpha: float = 1.0) -> Moments:
    """Return the moments of a law tilted by the reward."""
    w = p * torch.exp(reward(x[:, None]) / alpha)
    z = w.sum()
    mean = (w * x).sum() / z
    return Moments(float(z.log()), float(mean), float((w * (x - mean) ** 2).sum() / z))
