"""From latents to what a reward sees."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor


def decoder(pipeline: Any, decode: str | Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """Return the function that ``decode`` names, or is."""
    if callable(decode):
        return decode
    return partial(_images, pipeline) if decode == "image" else _latents


def _latents(latents: Tensor) -> Tensor:
    return latents


def _images(pipeline: Any, latents: Tensor) -> Tensor:
    """Return images ``[n, C, H, W]`` in [0, 1], as the pipeline makes them at its end."""
    vae, image = getattr(pipeline, "vae", None), latents
    if vae is not None:
        config = vae.config
        known = latents.ndim == 4 and latents.shape[1] == getattr(config, "latent_channels", None)
        if not known or getattr(config, "latents_mean", None) is not None:
            raise ValueError(
                f"decode: how {type(pipeline).__name__} decodes latents of shape {list(latents.shape)} is not known; give a "
                'function from latents to what the reward sees, or "latent"'
            )
        scale = getattr(config, "scaling_factor", None) or 1.0
        shift = getattr(config, "shift_factor", None) or 0.0
        image = vae.decode(latents.to(vae.dtype) / scale + shift, return_dict=False)[0]
    return (image / 2 + 0.5).clamp(0, 1)
