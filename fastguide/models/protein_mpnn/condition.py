"""A design, made ready: encoded backbone, fixed context folded in, variables mapped to residues."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from fastguide.models.protein_mpnn.backbone import Backbone, prepare
from fastguide.models.protein_mpnn.decoder import MASK, MASKED, Decoder
from fastguide.models.protein_mpnn.encoder import encode
from fastguide.models.protein_mpnn.features import complete
from fastguide.models.protein_mpnn.weights import ALPHABET, Weights

if TYPE_CHECKING:
    from fastguide.protein import Design


class Condition:
    """A design that the decoder can run on.

    Fixed residues (those of no variable) are revealed before everything else, one after another in their order along
    the structure, as the network was trained to read them.

    Attributes:
        layout: the mapping between variables and residues.
        decoder: the decoder of the free residues.
        blank: ``[1, layers - 1, F, H]``, the keys of a particle that has revealed nothing.
    """

    def __init__(self, weights: Weights, layout: Layout) -> None:
        self.layout = layout
        structure = layout.design.structure
        backbone = prepare(weights, encode(weights, structure))
        context = _read_fixed(backbone, layout.fixed, structure.tokens)
        self.decoder = Decoder(backbone, layout.columns, context, tabulate=True)
        self.blank = self.decoder.keys(1)
        size = self.decoder.size
        self.decoder.run(
            torch.full((1, size), MASK),
            torch.full((1, size), MASKED, dtype=torch.int16),
            torch.arange(size),
            self.blank,
        )

    def add_tokens(self, keys: Tensor, x: Tensor, fresh: Tensor) -> None:
        """Add the tokens of what is revealed now, ``fresh`` ``[n, >= L]``, to ``keys`` ``[n, layers - 1, F, H]``."""
        particle, column = fresh[:, self.layout.owner].nonzero(as_tuple=True)
        token = x[particle, self.layout.owner[column]]
        for depth, embedded in enumerate(self.decoder.backbone.tokens[1:]):
            keys[particle, depth, column] += embedded[token]

    def predict(self, x: Tensor, ranks: Tensor, wanted: Tensor, keys: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the logits of variables, and the keys of the residues once all of them are known.

        Args:
            x: ``[n, >= L]`` int64.
            ranks: ``[n, >= L]`` int16.
            wanted: ``[n, >= L]`` bool, the masked variables to predict.
            keys: those of the revealed residues, which are changed in place, or None to compute them.

        Returns:
            ``[n, L, 20]`` float32 with bias, zero where not wanted, and ``[n, layers - 1, F, H]``.
        """
        owner = self.layout.owner
        tokens, ranks = x[:, owner], ranks[:, owner]
        computed = wanted[:, owner] if keys is not None else wanted[:, owner] | (ranks < MASKED)
        keys = self.decoder.keys(len(x)) if keys is None else keys
        rows = computed.flatten().nonzero().squeeze(1)
        logits = torch.zeros(tokens.numel(), MASK, dtype=torch.float32)
        logits[rows] = self.decoder.run(tokens, ranks, rows, keys)[:, :MASK]
        mean = self.layout.average(logits.view(*tokens.shape, MASK)) + self.layout.design.bias
        return mean.where(wanted[:, : self.layout.length, None], 0.0), keys


class Layout:
    """Which residues the variables of a design are.

    Attributes:
        design: the design.
        length: L, the number of variables.
        columns: ``[F]`` int64, the residues of all variables, one variable after another.
        owner: ``[F]`` int64, the variable of each.
        share: ``[F]`` float32, one over the size of its tie set.
        fixed: ``[R - F]`` int64, the other residues.
        output: ``[R_out]`` int64, the residues of the designed chains.
        slot: ``[F]`` int64, the column of ``output`` that each free residue is.
    """

    def __init__(self, design: Design) -> None:
        self.design = design
        structure = design.structure
        size = len(structure.tokens)
        self.length = len(design.variables)
        members = [residue for variable in design.variables for residue in variable]
        if not members or min(map(len, design.variables)) == 0:
            raise ValueError("design: variables must hold at least one residue each, and there must be one or more")
        if min(members) < 0 or max(members) >= size or len(set(members)) < len(members):
            raise ValueError(f"design: variables must be distinct residues in 0..{size - 1}, each in one variable only")
        known = complete(structure.coordinates)
        for residue in members:
            if not known[residue]:
                raise ValueError(
                    f"design: residue {residue} of {structure.name} lacks backbone atoms; leave it out of variables"
                )
        if tuple(design.bias.shape) != (self.length, MASK):
            raise ValueError(f"design: bias must be [{self.length}, {MASK}], got {list(design.bias.shape)}")
        self.columns = torch.tensor(members)
        counts = torch.tensor([len(variable) for variable in design.variables])
        self.owner = torch.arange(self.length).repeat_interleave(counts)
        self.share = (1.0 / counts.to(torch.float32))[self.owner]
        free = torch.zeros(size, dtype=torch.bool)
        free[self.columns] = True
        self.fixed = (~free).nonzero().squeeze(1)
        self.output = design.output
        place = torch.full((size,), -1)
        place[self.output] = torch.arange(len(self.output))
        self.slot = place[self.columns]
        if (self.slot < 0).any():
            residue = int(self.columns[self.slot < 0][0])
            raise ValueError(f"design: residue {residue} is in variables but not in output; add its chain to output")

    def average(self, rows: Tensor) -> Tensor:
        """Average ``[n, F, V]`` over tie sets to ``[n, L, V]``."""
        if len(self.owner) == self.length:
            return rows
        out = torch.zeros(len(rows), self.length, rows.shape[2], dtype=rows.dtype)
        out.index_add_(1, self.owner, rows * self.share[:, None])
        return out

    def expand(self, x: Tensor) -> Tensor:
        """Expand variables ``[n, L]`` to the residues of the designed chains, ``[n, R_out]``."""
        out = self.design.structure.tokens[self.output].repeat(len(x), 1)
        out[:, self.slot] = x[:, self.owner]
        return out

    def expand_soft(self, x: Tensor) -> Tensor:
        """Expand weights of the variables ``[n, L, 20]`` to ``[n, R_out, 20]``, one-hot at fixed residues."""
        fixed = F.one_hot(self.design.structure.tokens[self.output], MASK + 1)[:, :MASK].to(x)
        return fixed.expand(len(x), -1, -1).index_copy(1, self.slot, x[:, self.owner])

    def text(self, residues: Tensor) -> list[str]:
        """Write residues ``[n, R_out]`` as letters, a slash between chains."""
        chain = self.design.structure.chain[self.output].tolist()
        breaks = ["/" if i and chain[i] != chain[i - 1] else "" for i in range(len(chain))]
        return ["".join(b + ALPHABET[t] for b, t in zip(breaks, row, strict=True)) for row in residues.tolist()]


def _read_fixed(backbone: Backbone, fixed: Tensor, tokens: Tensor) -> list[Tensor]:
    """Return, for each layer, what every residue adds to the first map of a pair while no free residue is revealed."""
    context = [nodes.clone() for nodes in backbone.nodes]
    if not len(fixed):
        return context
    given = tokens[fixed]
    reader = Decoder(backbone, fixed, backbone.nodes, tabulate=False)
    keys = reader.keys(1)
    # A residue without all its atoms has no hidden state: its token is all that others see of it.
    for depth, token in enumerate(backbone.tokens[1:]):
        keys[0, depth] = token[given]
    ranks = torch.arange(len(fixed), dtype=torch.int16)
    reader.run(given[None], ranks[None], backbone.encoding.complete[fixed].nonzero().squeeze(1), keys)
    context[0][fixed] += backbone.tokens[0][given]
    for depth, known in enumerate(context[1:]):
        known[fixed] += keys[0, depth]
    return context
