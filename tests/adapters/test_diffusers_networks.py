"""Real networks of ``diffusers``: tiny ones of random weights, and a DDPM trained on the digits."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

import fastguide as fg

pytest.importorskip("diffusers", reason="needs diffusers")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of packages that diffusers would like to find
    from diffusers import (
        AutoencoderKL,
        DDPMPipeline,
        DDPMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
        UNet2DModel,
    )

    from fastguide.adapters.diffusers import SteeringCallback
    from fastguide.adapters.diffusers.decode import decoder

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


def pipeline() -> StableDiffusionPipeline:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, cross_attention_dim=8, attention_head_dim=4, layers_per_block=1, block_out_channels=(32, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(block_out_channels=(16, 16), down_block_types=("DownEncoderBlock2D",) * 2,
                        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=8)  # fmt: skip
    pipe = StableDiffusionPipeline(
        unet=unet, vae=vae, scheduler=DDPMScheduler(clip_sample=False, steps_offset=1), text_encoder=None, tokenizer=None,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


def bright(images: Tensor) -> Tensor:
    return images.mean((1, 2, 3))


def draw(pipe, steering, rows, **options):
    torch.manual_seed(1)
    embeds = torch.randn(2, 3, 8)
    return pipe(
        prompt_embeds=embeds, negative_prompt_embeds=torch.zeros_like(embeds), num_images_per_prompt=rows, guidance_scale=3.0,
        num_inference_steps=6, callback_on_step_end=steering, **options,
    ).images  # fmt: skip


@pytest.mark.parametrize(
    "guidance", [fg.SMC(alpha=0.001), fg.SVDD(alpha=0.001, branch=2), fg.TDS(alpha=0.001)], ids=repr
)
def test_text_to_image_with_classifier_free_guidance(guidance):
    pipe = pipeline()
    steering = SteeringCallback(bright, guidance, particles=4)
    images = draw(pipe, steering, 4 * guidance.branch, guidance_rescale=0.5)
    assert len(images) == 8
    shown = torch.tensor(np.stack([np.asarray(image) for image in images])).double().mean((1, 2, 3)) / 255
    torch.testing.assert_close(shown.view(2, 4), steering.rewards, atol=0.01, rtol=0)
    plain = SteeringCallback(bright, fg.BestOfN(), particles=4)
    draw(pipe, plain, 4, guidance_rescale=0.5)
    assert bool((steering.rewards.mean(1) > plain.rewards.mean(1)).all())
    assert all(p.grad is None for p in pipe.unet.parameters())


def test_the_shift_is_along_the_gradient_through_guidance_and_rescaling():
    """The reward's derivative in the latents by finite differences of a pipeline's own calls."""
    pipe = pipeline()
    pipe.unet.double()
    shifts, states = [], []
    steering = SteeringCallback(lambda x: x.mean((1, 2, 3)) ** 2, fg.TDS(alpha=1.0, ess_threshold=0.0), decode="latent")

    def look(reading, sample, output, proposal):
        values, gradient = kept(reading, sample, output, proposal)
        shifts.append(gradient[0])
        states.append((sample.detach().clone(), float(values[0])))
        return values, gradient

    def once(pipe_, step, t, tensors):
        nonlocal kept
        out = steering(pipe_, step, t, tensors)
        if step == 0:
            kept = steering.run._differentiate
            steering.run._differentiate = look
        return out

    kept = None
    embeds = torch.randn(1, 3, 8, dtype=torch.float64)
    common = {
        "prompt_embeds": embeds, "negative_prompt_embeds": torch.zeros_like(embeds), "guidance_scale": 3.0,
        "guidance_rescale": 0.5, "num_inference_steps": 6, "output_type": "latent", "num_images_per_prompt": 2,
    }  # fmt: skip
    pipe(callback_on_step_end=once, **common)
    state, gradient = states[0][0], shifts[0]
    direction = gradient / gradient.norm()
    t, scheduler = pipe.scheduler.timesteps[1], pipe.scheduler

    def value(x):
        both = torch.cat([torch.zeros_like(embeds), embeds])
        with torch.no_grad():
            without, with_it = pipe.unet(torch.cat([x] * 2), t, encoder_hidden_states=both).sample.chunk(2)
        noise = without + 3.0 * (with_it - without)
        rescaled = noise * (with_it.std(dim=(1, 2, 3), keepdim=True) / noise.std(dim=(1, 2, 3), keepdim=True))
        noise = 0.5 * rescaled + 0.5 * noise
        bar = scheduler.alphas_cumprod[t].double()
        return float(((x - (1 - bar).sqrt() * noise) / bar.sqrt()).mean() ** 2)

    assert value(state[:1]) == pytest.approx(states[0][1], rel=1e-4)
    h = 1e-3
    slope = (value(state[:1] + h * direction) - value(state[:1] - h * direction)) / (2 * h)
    assert slope == pytest.approx(float(gradient.norm()), rel=1e-3)


def test_an_unconditional_pipeline():
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(16,), norm_num_groups=8,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",),
    )  # fmt: skip
    pipe = DDPMPipeline(unet=unet, scheduler=DDPMScheduler())
    pipe.set_progress_bar_config(disable=True)
    steering = SteeringCallback(bright, fg.TDS(alpha=0.01), particles=8)
    with steering.on(pipe):
        images = pipe(batch_size=16, num_inference_steps=5, output_type="np").images
    torch.testing.assert_close(
        torch.tensor(images).double().mean((1, 2, 3)).view(2, 8), steering.rewards, atol=1e-4, rtol=0
    )


def test_latents_of_an_unknown_kind_are_refused():
    pipe = pipeline()
    with pytest.raises(ValueError, match=r"StableDiffusionPipeline decodes latents of shape \[1, 16, 4\] is not known"):
        decoder(pipe, "image")(torch.zeros(1, 16, 4))
    assert decoder(pipe, "image")(torch.zeros(1, 4, 8, 8)).shape == (1, 3, 16, 16)


@pytest.mark.slow
def test_digits_are_steered_to_one_of_them():
    """A DDPM of the 1,797 digits; the reward is log p(3) of a classifier, another of the other half of the data tells."""
    datasets = pytest.importorskip("sklearn.datasets")
    linear = pytest.importorskip("sklearn.linear_model")
    pixels, labels = datasets.load_digits(return_X_y=True)
    images = torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, layers_per_block=1, block_out_channels=(32, 48), norm_num_groups=8,
        down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
    )  # fmt: skip
    scheduler = DDPMScheduler(beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing")
    optimizer = torch.optim.Adam(unet.parameters(), lr=2e-3)
    for _ in range(500):
        x0, noise = images[torch.randint(len(images), (64,))], torch.randn(64, 1, 8, 8)
        t = torch.randint(1000, (64,))
        loss = torch.nn.functional.mse_loss(unet(scheduler.add_noise(x0, noise, t), t).sample, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    pipe = DDPMPipeline(unet=unet.eval().requires_grad_(False), scheduler=scheduler)
    pipe.set_progress_bar_config(disable=True)

    def classifier(part):
        fitted = linear.LogisticRegression(C=0.05, max_iter=500).fit(pixels[part::2] / 16, labels[part::2])
        weight, bias = (torch.tensor(x, dtype=torch.float32) for x in (fitted.coef_, fitted.intercept_))
        return lambda images: (images.flatten(1) @ weight.T + bias).log_softmax(1)

    first, second = classifier(0), classifier(1)
    shares = {}
    for guidance in (fg.BestOfN(alpha=0.0), fg.SMC(alpha=0.5), fg.TDS(alpha=0.5), fg.SVDD(alpha=0.5, branch=4)):
        steering = SteeringCallback(lambda images: first(images)[:, 3], guidance, particles=48)
        with steering.on(pipe), torch.no_grad():
            found = pipe(48 * guidance.branch, num_inference_steps=20, output_type="pt").images
        assert found.shape == (48, 1, 8, 8)
        shares[type(guidance).__name__] = float((second(found).argmax(1) == 3).double().mean())
    assert shares["BestOfN"] < 0.4
    assert min(shares["SMC"], shares["TDS"]) > 0.7, shares
    assert shares["SVDD"] > shares["BestOfN"] + 0.15, shares
