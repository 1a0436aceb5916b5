"""The decoder: rows of logits under any order of revealing, in chunks of one fixed shape.

What a pair (i, j) of a layer adds to the message of i is ``W3 gelu(W2 gelu(W1 [h_i | e_ij | s_j | h_j]))``. The first
matrix is split into its four column blocks, and

- ``h_i`` is projected once a row (``query``);
- ``e_ij``, with the projected encoder state of j, which i sees as long as j is not revealed before i, is a constant of
  the backbone (``base``);
- what changes once i sees j, ``W1 [0 | 0 | s_j | h_j - encoder_j]``, is projected once a position (``key``), never a
  pair;
- context that is fixed from the start is seen by all and is folded into ``base``;
- ``W3`` is applied to the sum over neighbours.

So a pair costs one sum of three gathered rows, two GELUs and one 128x128 product. Layer 0 costs less still: its
messages depend on nothing but the pair and the token of j, so they are tabulated and the layer is a gather-sum.

Rows are computed in chunks of `CHUNK`, larger ones on a GPU, the last one padded: in a matrix product of one fixed shape a
row has the same bits whichever rows stand beside it.
"""

from __future__ import annotations

from copy import copy

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree

from fastguide.models.protein_mpnn.backbone import Backbone, DecoderLayer
from fastguide.models.protein_mpnn.layers import GPU_BLOCK, gelu_

CHUNK = 64
"""Rows of one chunk; 64 rows of 48 pairs and 128 channels are 1.6 MB, about what the L2 caches of two cores hold."""

_TABLE_CHUNK = 8
"""Positions whose part of the table is made at once."""

MASKED = torch.iinfo(torch.int16).max
"""The rank of what is not revealed."""

MASK = 20
"""The mask id, and the column of the table of layer 0 for a neighbour that is not seen."""


class Decoder:
    """The decoder of the residues ``columns`` of a backbone.

    Args:
        backbone: the decoder's weights on the backbone.
        columns: ``[F]`` int64, the residues whose tokens come and go.
        context: ``[R, H]`` for each layer: what a residue adds to the first map of every pair it is the neighbour of,
            as long as it is not one of ``columns`` that the pair sees.
        tabulate: whether to tabulate layer 0, which takes ``F * K * 21 * H`` floats.
    """

    def __init__(self, backbone: Backbone, columns: Tensor, context: list[Tensor], tabulate: bool) -> None:
        encoding = backbone.encoding
        self.backbone = backbone
        self.size = len(columns)
        self.count = encoding.neighbours.shape[1]
        self.hidden = encoding.nodes.shape[1]
        place = torch.full((len(encoding.nodes),), self.size, dtype=torch.int64)
        place[columns] = torch.arange(self.size)
        residues = encoding.neighbours[columns]
        self._neighbours = place[residues]
        self._nodes = encoding.nodes[columns]
        self._blank = [nodes[columns] for nodes in backbone.nodes]
        self._base = [
            layer.pair.block(encoding.edges[columns]).add_(known[residues]).view(-1, self.hidden)
            for layer, known in zip(backbone.layers, context, strict=True)
        ]
        self._table = self._tabulate(F.pad(backbone.tokens[0][:MASK], (0, 0, 0, 1))) if tabulate else None

    def to(self, device: torch.device) -> Decoder:
        """Return the decoder with all its constants on ``device``."""
        moved = copy(self)
        vars(moved).update(pytree.tree_map_only(Tensor, lambda constant: constant.to(device), vars(self)))
        return moved

    @property
    def device(self) -> torch.device:
        """Where the constants are."""
        return self._nodes.device

    @property
    def chunk(self) -> int:
        """Rows of one chunk."""
        return CHUNK if self.device.type == "cpu" else GPU_BLOCK

    @property
    def nbytes(self) -> int:
        """Bytes of the constants."""
        tensors = self._base if self._table is None else [self._table, *self._base]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def keys(self, n: int) -> Tensor:
        """Return room for the keys of ``n`` particles, ``[n, layers - 1, F, H]`` float32, for `run` to fill."""
        return torch.zeros(n, len(self._base) - 1, self.size, self.hidden, dtype=torch.float32, device=self.device)

    def shown(self, tokens: Tensor, fresh: Tensor) -> Tensor:
        """Return which tokens each residue is shown by its neighbours in ``fresh`` ``[n, F]``: ``[n, F, K]`` uint8.

        `MASK` stands where a neighbour shows nothing new.
        """
        token = F.pad(torch.where(fresh, tokens, MASK).to(torch.uint8), (0, 1), value=MASK)
        return token[:, self._neighbours]

    def run(self, tokens: Tensor, ranks: Tensor, rows: Tensor, keys: Tensor) -> Tensor:
        """Return the logits of some rows.

        Args:
            tokens: ``[n, F]`` int64.
            ranks: ``[n, F]`` int16, when each position was revealed; a row sees the positions of a lower rank.
            rows: ``[m]`` int64, the rows ``particle * F + position`` to compute.
            keys: ``[n, layers - 1, F, H]``, as `keys` makes them: right for every revealed position that is not in
                ``rows``. Those in ``rows`` are written, with their token if they are revealed and without if not.

        Returns:
            ``[m, 21]`` float32.
        """
        m = len(rows)
        rows = F.pad(rows, (0, -m % self.chunk))
        particle, position = rows // self.size, rows % self.size
        # One column more, never revealed, stands for the neighbours that are context.
        there = particle[:, None] * (self.size + 1) + self._neighbours[position]
        rank = ranks.reshape(-1)[rows]
        seen = F.pad(ranks, (0, 1), value=MASKED).view(-1)[there] < rank[:, None]
        pair = position[:, None] * self.count + torch.arange(self.count, device=self.device)
        own = tokens.reshape(-1)[rows]
        h = self._nodes[position]
        for depth, layer in enumerate(self.backbone.layers):
            if depth == 0 and self._table is not None:
                token = torch.where(seen, F.pad(tokens, (0, 1), value=MASK).view(-1)[there], MASK)
                total = self._look_up(self._table, pair * (MASK + 1) + token)
            else:
                key = self.backbone.tokens[0][tokens] if depth == 0 else keys[:, depth - 1]
                # The keys have no column for context; what is not seen reads the row of zeros behind them.
                place = torch.where(seen, there - particle[:, None], tokens.numel())
                total = self._attend(layer, self._base[depth], key, pair, place, h)
            h = layer.update(h, total)
            if depth + 1 < len(self._base):
                key = self.backbone.layers[depth + 1].node(h) - self._blank[depth + 1][position]
                key += torch.where((rank < MASKED)[:, None], self.backbone.tokens[depth + 1][own], 0.0)
                keys[particle[:m], depth, position[:m]] = key[:m]
        return self.backbone.out(h)[:m]

    def _tabulate(self, tokens: Tensor) -> Tensor:
        """Return the messages ``[F * K * V, H]`` of layer 0 for what a neighbour may show, projected: ``tokens [V, H]``."""
        layer = self.backbone.layers[0]
        table = torch.empty(self.size, self.count, len(tokens), self.hidden, dtype=torch.float32)
        pairs = self._base[0].view(self.size, self.count, 1, self.hidden)
        query = layer.query(self._nodes)
        for start in range(0, self.size, _TABLE_CHUNK):
            chunk = slice(start, start + _TABLE_CHUNK)
            hidden = gelu_(pairs[chunk] + query[chunk, None, None] + tokens)
            table[chunk] = gelu_(layer.second.block(hidden.flatten(0, 1))).view_as(hidden)
        return table.view(-1, self.hidden)

    def _look_up(self, table: Tensor, index: Tensor) -> Tensor:
        """Sum the tabulated messages ``[m, K]`` of layer 0 to ``[m, H]``."""
        return F.embedding_bag(index.to(torch.int32), table, mode="sum")

    def _attend(self, layer: DecoderLayer, base: Tensor, key: Tensor, pair: Tensor, place: Tensor, h: Tensor) -> Tensor:
        """Return the summed messages ``[m, H]`` of rows ``h`` ``[m, H]``, m a multiple of `chunk`.

        Args:
            layer: the weights.
            base: ``[F * K, H]``.
            key: ``[n, F, H]``.
            pair: ``[m, K]``, rows of ``base``.
            place: ``[m, K]``, rows of ``key``; one past the end where the neighbour is not seen.
            h: the rows' states.
        """
        # One table of base, keys, a row of zeros and the queries lets one gather-sum build the first map of a chunk.
        zero, chunk = torch.zeros(1, self.hidden, dtype=torch.float32, device=self.device), self.chunk
        table = torch.cat([base, key.reshape(-1, self.hidden), zero, layer.query(h)])
        query = torch.arange(len(table) - len(h), len(table), device=self.device)[:, None].expand_as(pair)
        index = torch.stack([pair, place + len(base), query], dim=2).to(torch.int32).flatten(1)
        offsets = torch.arange(0, 3 * self.count * chunk + 1, 3, dtype=torch.int32, device=self.device)
        out = torch.empty_like(h)
        for start in range(0, len(h), chunk):
            bags = index[start : start + chunk].view(-1)
            hidden = gelu_(F.embedding_bag(bags, table, offsets, mode="sum", include_last_offset=True))
            message = gelu_(layer.second.block(hidden.view(chunk, self.count, -1)))
            torch.sum(message, 1, out=out[start : start + chunk])
        return out
