"""Pretrained denoisers behind one protocol."""

from fastguide.models.protein_mpnn import ProteinMPNN
from fastguide.models.protocol import Denoiser, Prediction, wrap

__all__ = ["Denoiser", "Prediction", "ProteinMPNN", "wrap"]
