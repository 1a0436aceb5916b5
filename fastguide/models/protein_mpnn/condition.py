"""A design, made ready: encoded backbone, fixed context folded in, variables mapped to residues."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fastguide import ops
from fastguide.models.protein_mpnn.backbone import Backbone, prepare
from fastguide.models.protein_mpnn.decoder import MASK, MASKED, Decoder
from fastguide.models.protein_mpnn.encoder import encode
from fastguide.models.protein_mpnn.features import complete
from fastguide.models.protein_mpnn.layers import CPU
from fastguide.models.protein_mpnn.weights import ALPHABET, Weights

if TYPE_CHECKING:
    from fastguide.protein import Design


class Cached(NamedTuple):
    """What a call keeps of its particles, so that their children compute no more than what the new tokens change.

    A row of the decoder reads its neighbours and nothing else, and what was revealed stays as it was. So the row of a
    masked residue changes only with its neighbours, in the same way for all children of a parent that show it the same
    tokens, and that of a residue revealed now is the parent's.

    Attributes:
        keys: ``[n, layers - 1, F, H]`` float32, what each free residue tells those that see it, with its token once it is
            revealed.
        logits: ``[n, F, 20]`` float32 of the masked residues, without bias; NaN where neither keys nor logits were computed.
    """

    keys: Tensor
    logits: Tensor


class Condition:
    """A design that the decoder can run on.

    Fixed residues (those of no variable) are revealed before everything else, one after another in their order along
    the structure, as the network was trained to read them.

    Attributes:
        layout: the mapping between variables and residues.
        decoder: the decoder of the free residues.
        blank: what is known of one particle that has revealed nothing.

    All is computed on the CPU, whose constants a GPU gets by `to`.
    """

    def __init__(self, weights: Weights, layout: Layout) -> None:
        self.layout = layout
        structure = layout.design.structure
        backbone = prepare(weights, encode(weights, structure))
        context = _read_fixed(backbone, layout.fixed, structure.tokens)
        self.decoder = Decoder(backbone, layout.columns, context, tabulate=True)
        keys, size = self.decoder.keys(1), self.decoder.size
        nothing = torch.full((1, size), MASK), torch.full((1, size), MASKED, dtype=torch.int16)
        self.blank = Cached(keys, self.decoder.run(*nothing, torch.arange(size), keys)[None, :, :MASK])

    def to(self, device: torch.device) -> Condition:
        """Return the design on ``device``."""
        moved = copy(self)
        moved.decoder = self.decoder.to(device)
        moved.blank = Cached(*(leaf.to(device) for leaf in self.blank))
        return moved

    def predict(
        self, x: Tensor, ranks: Tensor, wanted: Tensor, fresh: Tensor, parents: Tensor, cached: Cached | None
    ) -> tuple[Tensor, Cached | None]:
        """Return the logits of variables, and what their children continue.

        Args:
            x: ``[n, >= L]`` int64.
            ranks: ``[n, >= L]`` int16.
            wanted: ``[n, >= L]`` bool, the masked variables to predict.
            fresh: ``[n, >= L]`` bool, what was revealed since the parents' call.
            parents: ``[n]`` int64; rows of one parent share what they have in common.
            cached: what is known of each row's parent, which is changed in place, or None to compute all.

        Returns:
            ``[n, L, 20]`` float32 with bias, zero where not wanted; and ``cached``.
        """
        owner, size = self.layout.on(x.device).owner, self.decoder.size
        tokens, ranks, given = x[:, owner], ranks[:, owner], wanted[:, owner]
        if cached is None:
            rows = (given | (ranks < MASKED)).flatten().nonzero().squeeze(1)
            logits = torch.zeros(len(x), size, MASK, dtype=torch.float32, device=x.device)
            logits.view(-1, MASK)[rows] = self.decoder.run(tokens, ranks, rows, self.decoder.keys(len(x)))[:, :MASK]
        else:
            keys, logits = cached
            _add_tokens(keys, self.decoder.backbone.tokens[1:], tokens, fresh[:, owner])
            shown = self.decoder.shown(tokens, fresh[:, owner])
            stale = (ranks == MASKED) & ((shown < MASK).any(2) | logits[..., 0].isnan())
            logits.masked_fill_(stale[..., None], torch.nan)
            particle, position = (stale & given).nonzero(as_tuple=True)
            origin = (parents[particle] * size + position)[:, None].view(torch.uint8)
            same = ops.unique(torch.cat([shown[particle, position], origin], dim=1))
            first = same.representatives[same.inverse]
            rows = (particle * size + position)[same.representatives]
            logits[particle, position] = self.decoder.run(tokens, ranks, rows, keys)[same.inverse, :MASK]
            keys[particle, :, position] = keys[particle[first], :, position[first]]
        return self._of_variables(logits, wanted), cached

    def predict_all(self, x: Tensor, ranks: Tensor, wanted: Tensor) -> tuple[Tensor, Cached]:
        """Do what `predict` does in shapes that do not depend on data: every residue is computed, whatever is known of it."""
        owner, size = self.layout.on(x.device).owner, self.decoder.size
        keys, rows = self.decoder.keys(len(x)), torch.arange(len(x) * size, device=x.device)
        logits = self.decoder.run(x[:, owner], ranks[:, owner], rows, keys)[:, :MASK].view(len(x), size, MASK)
        return self._of_variables(logits, wanted), Cached(keys, logits)

    def _of_variables(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """Turn logits of residues ``[n, F, 20]`` into those of variables ``[n, L, 20]``, with bias, zero where not wanted."""
        mean = self.layout.average(logits) + self.layout.on(logits.device).bias
        return mean.where(wanted[:, : self.layout.length, None], 0.0)


class Maps(NamedTuple):
    """What a `Layout` asks of tensors on one device.

    Attributes:
        owner: ``[F]`` int64, the variable of each free residue.
        share: ``[F]`` float32, one over the size of its tie set.
        ties: ``[L, S]`` int64, the free residues of each variable, and ``F`` where it has fewer than others.
        slot: ``[F]`` int64, the column among the residues of the designed chains that each free residue is.
        residues: ``[R_out]`` int64, the tokens of the designed chains as the structure has them.
        bias: ``[L, 20]`` float32, of the design.
    """

    owner: Tensor
    share: Tensor
    ties: Tensor
    slot: Tensor
    residues: Tensor
    bias: Tensor


class Layout:
    """Which residues the variables of a design are.

    Attributes:
        design: the design.
        length: L, the number of variables.
        columns: ``[F]`` int64, the residues of all variables, one variable after another.
        fixed: ``[R - F]`` int64, the other residues.
        output: ``[R_out]`` int64, the residues of the designed chains.
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
        owner = torch.arange(self.length).repeat_interleave(counts)
        share = (1.0 / counts.to(torch.float32))[owner]
        place = torch.arange(int(counts.max())).expand(self.length, -1)
        ties = torch.where(place < counts[:, None], (counts.cumsum(0) - counts)[:, None] + place, len(members))
        free = torch.zeros(size, dtype=torch.bool)
        free[self.columns] = True
        self.fixed = (~free).nonzero().squeeze(1)
        self.output = design.output
        place = torch.full((size,), -1)
        place[self.output] = torch.arange(len(self.output))
        slot = place[self.columns]
        if (slot < 0).any():
            residue = int(self.columns[slot < 0][0])
            raise ValueError(f"design: residue {residue} is in variables but not in output; add its chain to output")
        self._maps = {CPU: Maps(owner, share, ties, slot, structure.tokens[self.output], design.bias)}

    def on(self, device: torch.device) -> Maps:
        """Return the maps on ``device``, made there when they are first asked for."""
        if device not in self._maps:
            self._maps[device] = Maps(*(tensor.to(device) for tensor in self._maps[CPU]))
        return self._maps[device]

    def average(self, rows: Tensor) -> Tensor:
        """Average ``[n, F, V]`` over tie sets to ``[n, L, V]``."""
        maps = self.on(rows.device)
        if len(maps.owner) == self.length:
            return rows
        # Sums in the order of the residues: an addition by index has no order on a GPU.
        shared = F.pad(rows * maps.share[:, None], (0, 0, 0, 1))
        out = torch.zeros(len(rows), self.length, rows.shape[2], dtype=rows.dtype, device=rows.device)
        for residues in maps.ties.unbind(1):
            out += shared[:, residues]
        return out

    def expand(self, x: Tensor) -> Tensor:
        """Expand variables ``[n, L]`` to the residues of the designed chains, ``[n, R_out]``."""
        maps = self.on(x.device)
        out = maps.residues.repeat(len(x), 1)
        out[:, maps.slot] = x[:, maps.owner]
        return out

    def expand_soft(self, x: Tensor) -> Tensor:
        """Expand weights of the variables ``[n, L, 20]`` to ``[n, R_out, 20]``, one-hot at fixed residues."""
        maps = self.on(x.device)
        # By comparison: torch's one_hot reads how large the largest token is.
        fixed = (maps.residues[:, None] == torch.arange(MASK, device=x.device)).to(x)
        return fixed.expand(len(x), -1, -1).index_copy(1, maps.slot, x[:, maps.owner])

    def text(self, residues: Tensor) -> list[str]:
        """Write residues ``[n, R_out]`` as letters, a slash between chains."""
        chain = self.design.structure.chain[self.output].tolist()
        breaks = ["/" if i and chain[i] != chain[i - 1] else "" for i in range(len(chain))]
        return ["".join(b + ALPHABET[t] for b, t in zip(breaks, row, strict=True)) for row in residues.tolist()]


def _add_tokens(keys: Tensor, embedded: Sequence[Tensor], tokens: Tensor, fresh: Tensor) -> None:
    """Add the tokens of what is revealed now, ``fresh`` ``[n, F]``, to ``keys`` ``[n, layers - 1, F, H]``."""
    particle, position = fresh.nonzero(as_tuple=True)
    token = tokens[particle, position]
    for depth, table in enumerate(embedded):
        keys[particle, depth, position] += table[token]


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
