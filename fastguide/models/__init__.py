"""Pretrained denoisers behind one protocol."""

from fastguide.models.protein_mpnn import ProteinMPNN
from fastguide.models.protocol import Denoiser, Prediction, wrap
from fastguide.models.transformers import CausalLM, MaskedLM, from_transformers

__all__ = ["CausalLM", "Denoiser", "MaskedLM", "Prediction", "ProteinMPNN", "from_transformers", "wrap"]
