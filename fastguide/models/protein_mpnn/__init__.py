"""ProteinMPNN as an absorbing-state denoiser, by inference code of our own."""

from fastguide.models.protein_mpnn.model import ProteinMPNN
from fastguide.models.protein_mpnn.weights import ALPHABET

__all__ = ["ALPHABET", "ProteinMPNN"]
