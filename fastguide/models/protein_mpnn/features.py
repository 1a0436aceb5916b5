"""The graph of a backbone: nearest neighbours and what the network is told of each pair.

Dauparas et al., "Robust deep learning-based protein sequence design using ProteinMPNN", Science 378 (2022).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastguide.models.protein_mpnn.layers import affine, norm
from fastguide.models.protein_mpnn.weights import Weights

# Pairs of atoms whose distances are features, in the order of the weights; the CA-CA distance comes before them.
_PAIRS = (
    "N-N C-C O-O CB-CB CA-N CA-C CA-O CA-CB N-C N-O N-CB CB-C CB-O O-C N-CA C-CA O-CA CB-CA C-N O-N CB-N C-CB O-CB C-O"
)
_ATOMS = ("N", "CA", "C", "O", "CB")
_MAX_OFFSET = 32


def complete(coordinates: Tensor) -> Tensor:
    """Return a bool ``[R]``: whether all four backbone atoms of a residue are known (``coordinates`` ``[R, 4, 3]``)."""
    return torch.isfinite(coordinates).flatten(1).all(dim=1)


def graph(weights: Weights, coordinates: Tensor, residue_index: Tensor, chain: Tensor) -> tuple[Tensor, Tensor]:
    """Return the edges of a backbone.

    Args:
        weights: the network.
        coordinates: ``[R, 4, 3]`` N, CA, C, O in ångström, nan where missing.
        residue_index: ``[R]`` int64, the position along the chain, each chain set apart by 100.
        chain: ``[R]`` int64, which chain.

    Returns:
        neighbours ``[R, K]`` int64, nearest first by CA distance, the residue itself among them, and the normalised
        edge features ``[R, K, 128]`` float32.
    """
    mask = complete(coordinates).float()
    x = torch.nan_to_num(coordinates.float(), nan=0.0)
    distance, neighbours = _nearest(x[:, 1], mask, weights.num_edges)
    bond, next_bond = x[:, 1] - x[:, 0], x[:, 2] - x[:, 1]
    normal = torch.linalg.cross(bond, next_bond)
    # The position of an ideal CB relative to the three atoms, in the constants that the network was trained with.
    beta = -0.58273431 * normal + 0.56802827 * bond - 0.54067466 * next_bond + x[:, 1]
    atoms = torch.cat([x, beta[:, None]], dim=1)
    pairs = [[_ATOMS.index(atom) for atom in pair.split("-")] for pair in _PAIRS.split()]
    here, there = torch.tensor(pairs).t()
    gaps = atoms[:, here].unsqueeze(1) - atoms[:, there][neighbours]
    distances = torch.cat([distance.unsqueeze(2), (gaps.square().sum(-1) + 1e-6).sqrt()], dim=2)
    features = torch.cat([_position(weights, residue_index, chain, neighbours), _radial(distances)], dim=2)
    embedded = affine(weights.parameters, "features.edge_embedding").block(features)
    return neighbours, norm(weights.parameters, "features.norm_edges")(embedded)


def _nearest(ca: Tensor, mask: Tensor, num_edges: int) -> tuple[Tensor, Tensor]:
    both = mask[:, None] * mask[None, :]
    distance = both * ((ca[:, None] - ca[None, :]).square().sum(-1) + 1e-6).sqrt()
    distance = distance + (1.0 - both) * distance.amax(dim=1, keepdim=True)
    nearest = torch.topk(distance, min(num_edges, ca.shape[0]), dim=1, largest=False)
    return nearest.values, nearest.indices


def _radial(distances: Tensor) -> Tensor:
    centres = torch.linspace(2.0, 22.0, 16, dtype=torch.float32)
    return torch.exp(-(((distances.unsqueeze(-1) - centres) / 1.25).square())).flatten(2)


def _position(weights: Weights, residue_index: Tensor, chain: Tensor, neighbours: Tensor) -> Tensor:
    offset = (residue_index[:, None] - residue_index[neighbours] + _MAX_OFFSET).clamp(0, 2 * _MAX_OFFSET)
    offset = torch.where(chain[:, None] == chain[neighbours], offset, 2 * _MAX_OFFSET + 1)
    embedding = affine(weights.parameters, "features.embeddings.linear")
    assert embedding.bias is not None
    return embedding.weight.t()[offset] + embedding.bias
