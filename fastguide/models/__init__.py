"""Pretrained denoisers behind one protocol."""

from fastguide.models.classifier_free import ClassifierFree, classifier_free
from fastguide.models.diffusers import DiffusersModel, from_diffusers
from fastguide.models.product import Product
from fastguide.models.protein_mpnn import ProteinMPNN
from fastguide.models.protocol import Denoiser, Prediction, wrap
from fastguide.models.transformers import CausalLM, MaskedLM, from_transformers

__all__ = [
    "CausalLM",
    "ClassifierFree",
    "Denoiser",
    "DiffusersModel",
    "MaskedLM",
    "Prediction",
    "Product",
    "ProteinMPNN",
    "classifier_free",
    "from_diffusers",
    "from_transformers",
    "wrap",
]
