"""The nodes of one depth of the search trees of all groups, a row a node, in tensors that grow."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fastguide.models.protocol import State, state_bytes

NONE = -1
"""No node."""
_NUMBERS = ("group", "parent", "row", "count", "draws", "visits", "degree", "start", "room")


@dataclass
class Level:
    """The children of a node stand side by side in ``listed``, in the order of their making.

    Attributes:
        x: ``[C, *shape]`` states; of the C rows the first ``size`` are in use, here and below.
        value: float64, the soft value.
        group: which group a node belongs to. parent: the node above.
        row: of the denoiser state of the level above, which a prediction continues.
        count: how often the parent drew the node. draws: how often the node drew. visits: descents that came by.
        degree: children. start, room: where in ``listed`` they begin, and how many have room there.
        listed: the children, nodes of the level below.
        state: the denoiser state after the prediction of each node; None before the first, or where there is none.
    """

    x: Tensor
    value: Tensor = field(init=False)
    group: Tensor = field(init=False)
    parent: Tensor = field(init=False)
    row: Tensor = field(init=False)
    count: Tensor = field(init=False)
    draws: Tensor = field(init=False)
    visits: Tensor = field(init=False)
    degree: Tensor = field(init=False)
    start: Tensor = field(init=False)
    room: Tensor = field(init=False)
    listed: Tensor = field(init=False)
    state: State = None
    size: int = 0

    def __post_init__(self) -> None:
        self.value = self.x.new_empty(len(self.x), dtype=torch.float64)
        for name in _NUMBERS:
            setattr(self, name, self.x.new_empty(len(self.x), dtype=torch.int64))
        self.listed = self.x.new_empty(0, dtype=torch.int64)

    def nbytes(self, more: int = 0) -> int:
        """Return the bytes that the tensors take, or would take with ``more`` nodes."""
        columns = [self.x, self.value, *(getattr(self, name) for name in _NUMBERS)]
        held = sum(state_bytes(column) for column in (*columns, self.state))
        return held // max(1, len(self.x)) * self._capacity(more) + state_bytes(self.listed)

    def _capacity(self, more: int) -> int:
        needed = self.size + more
        return len(self.x) if needed <= len(self.x) else max(needed, 2 * len(self.x))

    def add(self, above: Level | None, x: Tensor, group: Tensor, parent: Tensor, row: Tensor) -> Tensor:
        """Add nodes ``x`` ``[n, *shape]`` under nodes ``parent`` of the level above, never drawn so far; return them."""
        ids = torch.arange(self.size, self.size + len(x), device=x.device)
        self._grow(self._capacity(len(x)))
        self.size += len(x)
        self.x[ids], self.group[ids], self.parent[ids], self.row[ids] = x, group, parent, row
        for column in (self.count, self.draws, self.visits, self.degree, self.room):
            column[ids] = 0
        self.value[ids] = -torch.inf
        if above is not None:
            above._list(parent, ids)
        return ids

    def children_of(self, nodes: Tensor) -> Tensor:
        """Return the children ``[U, K]`` of nodes ``[U]``, each row filled up with `NONE`."""
        degree = self.degree[nodes][:, None]
        place = torch.arange(int(degree.max()), device=nodes.device)
        at = torch.where(place < degree, self.start[nodes][:, None] + place, 0)
        return torch.where(place < degree, self.listed[at], NONE)

    def _list(self, parent: Tensor, children: Tensor) -> None:
        """List ``children[i]`` under node ``parent[i]``. A list that is full moves to the end, with twice the room."""
        nodes, which, new = torch.unique(parent, return_inverse=True, return_counts=True)
        full = self.degree[nodes] + new > self.room[nodes]
        moved, needed = nodes[full], (self.degree[nodes] + new)[full]
        if len(moved):
            old = self.children_of(moved)
            room = torch.maximum(2 * self.room[moved], needed)
            end = len(self.listed)
            self.listed = torch.cat([self.listed, self.listed.new_empty(int(room.sum()))])
            self.room[moved], self.start[moved] = room, end + room.cumsum(0) - room
            at = self.start[moved][:, None] + torch.arange(old.shape[1], device=old.device)
            self.listed[at[old != NONE]] = old[old != NONE]
        self.listed[self.start[parent] + self.degree[parent] + numbered(which, new)] = children
        self.degree[nodes] += new

    def keep_state(self, nodes: Tensor, state: State, rows: Tensor) -> None:
        """Keep row ``rows[i]`` of a denoiser state as that of node ``nodes[i]``."""
        if state is None:
            return
        capacity = len(self.x)
        if self.state is None:
            self.state = pytree.tree_map_only(Tensor, lambda leaf: leaf.new_empty(capacity, *leaf.shape[1:]), state)
        for kept, leaf in zip(pytree.tree_leaves(self.state), pytree.tree_leaves(state), strict=True):
            if isinstance(kept, Tensor):
                kept[nodes] = leaf[rows]

    def _grow(self, capacity: int) -> None:
        if capacity == len(self.x):
            return

        def grown(column: Tensor) -> Tensor:
            larger = column.new_empty(capacity, *column.shape[1:])
            larger[: self.size] = column[: self.size]
            return larger

        for name in ("x", "value", *_NUMBERS):
            setattr(self, name, grown(getattr(self, name)))
        self.state = pytree.tree_map_only(Tensor, grown, self.state)


def numbered(which: Tensor, counts: Tensor) -> Tensor:
    """Return the number ``[n]`` of each among those of its kind ``which`` ``[n]``, ``counts`` ``[U]`` of each kind."""
    order = which.argsort(stable=True)
    start = counts.cumsum(0) - counts
    number = torch.empty_like(which)
    number[order] = torch.arange(len(which), device=which.device) - start[which[order]]
    return number
