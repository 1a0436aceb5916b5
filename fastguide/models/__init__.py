"""Pretrained denoisers behind one protocol."""

from fastguide.models.protocol import Denoiser, Prediction, wrap

__all__ = ["Denoiser", "Prediction", "wrap"]
