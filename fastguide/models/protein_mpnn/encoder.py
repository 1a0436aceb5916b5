"""The encoder: a backbone's graph to node and edge states, once per backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from fastguide.models.protein_mpnn.features import complete, graph
from fastguide.models.protein_mpnn.layers import Affine, affine, gelu_, node_update, norm
from fastguide.models.protein_mpnn.weights import Weights

if TYPE_CHECKING:
    from fastguide.protein import Structure

SCALE = 30.0
"""What both kinds of layer divide a sum of messages by."""


class Encoding(NamedTuple):
    """An encoded backbone.

    Attributes:
        nodes: ``[R, H]`` float32, zero where an atom is missing.
        edges: ``[R, K, H]`` float32.
        neighbours: ``[R, K]`` int64.
        complete: ``[R]`` bool, whether a residue has all its backbone atoms.
    """

    nodes: Tensor
    edges: Tensor
    neighbours: Tensor
    complete: Tensor


def encode(weights: Weights, structure: Structure) -> Encoding:
    """Encode a backbone."""
    parameters = weights.parameters
    neighbours, edges = graph(weights, structure.coordinates, structure.residue_index, structure.chain)
    edges = affine(parameters, "W_e").block(edges)
    known = complete(structure.coordinates)
    mask = known.float()
    present = (mask[:, None] * mask[neighbours]).unsqueeze(2)
    nodes = torch.zeros(edges.shape[0], edges.shape[2], dtype=torch.float32)
    for layer in range(weights.layers("encoder")):
        name = f"encoder_layers.{layer}"
        update = node_update(parameters, name, SCALE, None)
        last = affine(parameters, f"{name}.W3")
        assert last.bias is not None
        message = _message(parameters, name, ("W1", "W2"), nodes, edges, neighbours) * present
        # The bias of the last map comes once for each neighbour that is present.
        shifted = nodes + last.bias * (present.sum(1) / SCALE)
        nodes = update(shifted, message.sum(1)) * mask[:, None]
        message = _message(parameters, name, ("W11", "W12"), nodes, edges, neighbours)
        edges = norm(parameters, f"{name}.norm3")(edges + affine(parameters, f"{name}.W13").block(message))
    return Encoding(nodes, edges, neighbours, known)


def _message(
    parameters: dict[str, Tensor], layer: str, names: tuple[str, str], nodes: Tensor, edges: Tensor, neighbours: Tensor
) -> Tensor:
    first, second = (affine(parameters, f"{layer}.{name}") for name in names)
    here, pair, there = torch.split(first.weight, nodes.shape[1], dim=1)
    hidden = Affine(pair, first.bias).block(edges)
    hidden += Affine(here, None)(nodes)[:, None]
    hidden += Affine(there, None)(nodes)[neighbours]
    return gelu_(second.block(gelu_(hidden)))
