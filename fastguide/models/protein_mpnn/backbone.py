"""The decoder's weights, split, and what they make of one encoded backbone."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastguide.models.protein_mpnn.encoder import SCALE, Encoding
from fastguide.models.protein_mpnn.layers import Affine, NodeUpdate, affine, node_update
from fastguide.models.protein_mpnn.weights import Weights


class DecoderLayer(NamedTuple):
    """One layer's weights.

    Attributes:
        query, pair, token, node: the column blocks of the first matrix, ``[H, H]`` each; the query carries its bias.
        second: the second map of the message network.
        update: the rest.
    """

    query: Affine
    pair: Affine
    token: Affine
    node: Affine
    second: Affine
    update: NodeUpdate


class Backbone(NamedTuple):
    """A network's decoder on one encoded backbone.

    Attributes:
        encoding: what the encoder made of the backbone.
        layers: the decoder's layers.
        tokens: ``[21, H]`` for each layer: the projected embeddings of the tokens.
        nodes: ``[R, H]`` for each layer: the projected encoder states.
        out: the map to the 21 logits.
    """

    encoding: Encoding
    layers: list[DecoderLayer]
    tokens: list[Tensor]
    nodes: list[Tensor]
    out: Affine


def prepare(weights: Weights, encoding: Encoding) -> Backbone:
    """Split the decoder's weights and project what is constant on a backbone."""
    count = encoding.neighbours.shape[1]
    layers = [_layer(weights.parameters, f"decoder_layers.{i}", count) for i in range(weights.layers("decoder"))]
    embedding = weights.parameters["W_s.weight"]
    return Backbone(
        encoding,
        layers,
        [layer.token(embedding) for layer in layers],
        [layer.node(encoding.nodes) for layer in layers],
        affine(weights.parameters, "W_out"),
    )


def _layer(parameters: dict[str, Tensor], name: str, neighbours: int) -> DecoderLayer:
    first = affine(parameters, f"{name}.W1")
    query, pair, token, node = (block.contiguous() for block in torch.split(first.weight, len(first.weight), dim=1))
    return DecoderLayer(
        Affine(query, first.bias),
        Affine(pair, None),
        Affine(token, None),
        Affine(node, None),
        affine(parameters, f"{name}.W2"),
        node_update(parameters, name, SCALE, neighbours),
    )
