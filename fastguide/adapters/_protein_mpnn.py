"""Recognises AlignInversePro's network, so that our own inference code may run it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from fastguide.models.protein_mpnn.unordered import UnorderedMPNN
from fastguide.models.protein_mpnn.weights import Weights

_PARTS = ("features", "W_e", "W_s", "encoder_layers", "decoder_layers", "W_out")
_TOLERANCE = 1e-3
"""Largest difference of log-probabilities; two ways to round the same network differ by 1e-4."""


def recognize(model: Any, backbones: Any) -> UnorderedMPNN | None:
    """Return our own code for ``model``, where it is their network and says what our code says.

    The network is looked for in the model and in what it wraps. It has to be on the CPU and in evaluation mode, the backbone
    whole, and its answers for three states the same as ours.
    """
    network = _find(model)
    if network is None or network.training or not bool((backbones.mask == 1).all()):
        return None
    one = [part[:1] for part in backbones]
    parameters = {name: value.detach() for name, value in network.state_dict().items()}
    if any(value.device.type != "cpu" or value.dtype != torch.float32 for value in (*parameters.values(), one[0])):
        return None
    structure: Any = SimpleNamespace(coordinates=one[0][0], residue_index=one[3][0].long(), chain=one[4][0].long())
    edges = int(getattr(network.features, "top_k", 0))
    try:
        ours = UnorderedMPNN(Weights(parameters, edges, "", Path()), structure)
    except (KeyError, RuntimeError, IndexError, AssertionError):
        return None  # a network of other layers or shapes
    states = _states(one[0].shape[1], ours.vocab)
    several = backbones.take(torch.zeros(len(states), dtype=torch.int64))
    with torch.no_grad():
        theirs = several.ask(model, states)
    return ours if _same(theirs, ours.logits(states)) else None


def _find(model: Any) -> nn.Module | None:
    """Return the only module with the parts of the network."""
    held = model.modules() if isinstance(model, nn.Module) else getattr(model, "__dict__", {}).values()
    found = [m for m in held if isinstance(m, nn.Module) and all(hasattr(m, part) for part in _PARTS)]
    return found[0] if len(found) == 1 else None


def _states(length: int, mask: int) -> Tensor:
    """Return a masked state, one half masked and one complete."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(mask, (3, length), generator=generator)
    share = torch.tensor([[1.0], [0.5], [0.0]])
    return tokens.masked_fill(torch.rand(3, length, generator=generator) < share, mask)


def _same(theirs: Tensor, ours: Tensor) -> bool:
    if theirs.shape != ours.shape:
        return False
    a, b = (torch.log_softmax(x.float(), -1).clamp(min=-30.0) for x in (theirs, ours))
    return bool(((a - b).abs() < _TOLERANCE).all())
