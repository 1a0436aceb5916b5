"""ProteinMPNN without an order: every residue reads the tokens of all its neighbours at once, the mask one of them.

AlignInversePro trains the network so (``ProteinMPNNFMIF``: 22 tokens, no mask of what is decoded before what). All residues
change with every token, so nothing is kept from call to call; encoder, edges and the table of layer 0 are made once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from fastguide.models.protein_mpnn.backbone import Backbone, prepare
from fastguide.models.protein_mpnn.decoder import Decoder
from fastguide.models.protein_mpnn.encoder import encode
from fastguide.models.protein_mpnn.layers import inference
from fastguide.models.protein_mpnn.weights import Weights
from fastguide.models.protocol import Denoiser, Prediction, State

if TYPE_CHECKING:
    from fastguide.protein import Structure

_ROWS = 16384
"""Rows of the decoder that are worked on at once."""


class UnorderedMPNN(Denoiser):
    """p(amino acid | backbone, all tokens); the last token of the embedding is the mask.

    Args:
        weights: of the network.
        structure: a backbone without gaps.
    """

    batch_invariant = True

    def __init__(self, weights: Weights, structure: Structure) -> None:
        with inference():
            self._decoder = _Unordered(prepare(weights, encode(weights, structure)))
        self.vocab = len(weights.parameters["W_s.weight"]) - 1

    def __call__(
        self, x: Tensor, t: Tensor | None = None, state: State = None, rows: Tensor | None = None
    ) -> Prediction:
        """Return logits ``[n, L, V]`` of tokens ``[n, L]``, the mask's column left out."""
        return Prediction(self.logits(x)[..., : self.vocab])

    def logits(self, x: Tensor) -> Tensor:
        """Return logits ``[n, L, V + 1]``."""
        with inference():
            parts = [self._decoder.read(part) for part in torch.split(x, max(1, _ROWS // x.shape[1]))]
        return torch.cat(parts)


class _Unordered(Decoder):
    def __init__(self, backbone: Backbone) -> None:
        # In layer 0 the state of a neighbour is what the encoder said; later it is a key.
        context = [backbone.nodes[0], *(torch.zeros_like(nodes) for nodes in backbone.nodes[1:])]
        super().__init__(backbone, torch.arange(len(backbone.encoding.nodes)), context, tabulate=False)
        self._messages = self._tabulate(backbone.tokens[0])

    def read(self, tokens: Tensor) -> Tensor:
        """Return the logits ``[n, R, V + 1]`` of all residues."""
        m, kinds = tokens.numel(), len(self.backbone.tokens[0])
        rows = F.pad(torch.arange(m), (0, -m % self.chunk))
        position = rows % self.size
        there = (rows - position)[:, None] + self._neighbours[position]
        pair = position[:, None] * self.count + torch.arange(self.count)
        flat = tokens.reshape(-1)
        h = self._nodes[position]
        for depth, layer in enumerate(self.backbone.layers):
            if depth == 0:
                total = self._look_up(self._messages, pair * kinds + flat[there])
            else:
                key = layer.node(h)[:m] + self.backbone.tokens[depth][flat]
                total = self._attend(layer, self._base[depth], key, pair, there, h)
            h = layer.update(h, total)
        return self.backbone.out(h)[:m].view(*tokens.shape, -1)
