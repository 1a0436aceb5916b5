"""Descents through the search trees, many at a time: at every depth a child is drawn anew or chosen among those known."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastguide import ops
from fastguide.guidance.tree.level import NONE, Level, numbered
from fastguide.guidance.tree.policy import back_up, choose
from fastguide.reference.philox import Stream, philox, word64
from fastguide.states import States
from fastguide.timer import Timer

if TYPE_CHECKING:
    from fastguide.guidance.tree_search import TreeSearch
    from fastguide.run import Run

Draw = Callable[[States, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]


class Search:
    """The trees of a run, one a group.

    Attributes:
        levels: ``levels[0]`` has the roots, the law of the noise; ``levels[1 + k]`` states after k steps, the last the leaves.
        done: descents of each group so far.
    """

    def __init__(self, settings: TreeSearch, run: Run) -> None:
        self.settings, self.run, self.done = settings, run, 0
        self.groups, self.steps = run.steering.groups, run.scene.process.steps
        device = run.device
        self.levels = [Level(run.x[:0]) for _ in range(self.steps + 2)]
        everyone, each = torch.arange(len(run.x), device=device), torch.arange(self.groups, device=device)
        self.levels[0].add(None, run.x[:: run.steering.particles], each, each, each)
        self.levels[0].state = run.initial_state()
        self._kinds = everyone  # states of the noise that are the same node have the same number
        if not run.x.is_floating_point():
            key = run.scene.denoiser.key(run.x, self.levels[0].state, everyone)
            self._kinds = ops.unique(torch.cat([key, (everyone // run.steering.particles)[:, None]], 1)).inverse
        self.lowest = torch.full((self.groups,), torch.inf, dtype=torch.float64, device=device)
        self.highest = -self.lowest

    @property
    def nodes(self) -> int:
        """All of them."""
        return sum(level.size for level in self.levels)

    def nbytes(self, more: int = 0) -> int:
        """Return the bytes that the trees take, or would take with ``more`` nodes on every level."""
        return sum(level.nbytes(more) for level in self.levels[1:])

    def descend(self, count: int, timer: Timer) -> Tensor:
        """Send ``count`` descents down the tree of each group, back up what they find; return their leaves ``[G·count]``."""
        device = self.run.device
        group = torch.arange(self.groups, device=device).repeat_interleave(count)
        number = torch.arange(self.done, self.done + count, device=device).repeat(self.groups)
        low, high, _, _ = philox(self.run.steering.seeds[group], number, 0, 0, int(Stream.USER))
        seeds = word64(low, high) & (2**63 - 1)
        known = self.levels[-1].size
        path = [group]
        with timer("denoiser"):
            for depth in range(self.steps + 1):
                path.append(self._advance(depth, path[-1], group, seeds))
        leaves = self.levels[-1]
        leaves.visits.index_add_(0, path[-1], torch.ones_like(group))
        if leaves.size > known:
            with timer("reward"):
                self._evaluate(slice(known, leaves.size))
        for depth in reversed(range(self.steps + 1)):
            back_up(self, depth, torch.unique(path[depth]))
        self.done += count
        return path[-1]

    def _evaluate(self, fresh: slice) -> None:
        """Give new leaves their rewards."""
        leaves, run = self.levels[-1], self.run
        group = leaves.group[fresh]
        rewards = run.scene.problems.rewards(leaves.x[fresh], run.problem[group * run.steering.particles])
        leaves.value[fresh] = rewards
        finite = rewards > -torch.inf
        self.lowest.scatter_reduce_(0, group[finite], rewards[finite], "amin")
        self.highest.scatter_reduce_(0, group[finite], rewards[finite], "amax")

    def _children_at(self, visits: Tensor) -> Tensor:
        """Return how many draws a node makes in so many visits."""
        settings = self.settings
        # The small number keeps a power that is whole from falling below itself.
        return (settings.width * visits.double() ** settings.growth + 1e-9).floor().to(torch.int64)

    def _advance(self, depth: int, at: Tensor, group: Tensor, seeds: Tensor) -> Tensor:
        """Return the nodes of the next depth that descents at nodes ``at`` go on to."""
        above = self.levels[depth]
        nodes, which, arrivals = torch.unique(at, return_inverse=True, return_counts=True)
        number = numbered(which, arrivals)
        children = above.children_of(nodes)
        more = self._children_at(above.visits[nodes] + arrivals) - above.draws[nodes]
        draws = (number < more[which]) | (above.degree[at] == 0)
        above.visits.index_add_(0, nodes, arrivals)
        following = torch.empty_like(at)
        chosen, drawn = (~draws).nonzero()[:, 0], draws.nonzero()[:, 0]
        if len(chosen):
            turn = (number - more[which].clamp(min=0))[chosen]
            following[chosen] = choose(self, depth, nodes, children, which[chosen], turn, seeds[chosen])
        if len(drawn):
            following[drawn] = self._draw(depth, at[drawn], number[drawn], group[drawn], seeds[drawn])
        return following

    def _draw(self, depth: int, at: Tensor, number: Tensor, group: Tensor, seeds: Tensor) -> Tensor:
        """Draw a child of each node ``at`` from the pretrained process; return the nodes, new ones among them."""
        above, below, n = self.levels[depth], self.levels[depth + 1], self.run.steering.particles
        if depth == 0:
            row = group * n + (above.draws[at] + number) % n
            x, keys = self.run.x[row], self._kinds[row][:, None]
        else:
            x = self._propose(depth, at, group, seeds)
            row, keys = at, x
        above.draws.index_add_(0, at, torch.ones_like(at))
        if x.is_floating_point():
            ids = below.add(above, x, group, at, row)
        else:
            old = above.children_of(torch.unique(at)).flatten()
            old = old[old != NONE]
            old_keys = self._kinds[below.row[old]][:, None] if depth == 0 else below.x[old]
            known = torch.cat([below.parent[old][:, None], old_keys], 1)
            merged = ops.unique(torch.cat([known, torch.cat([at[:, None], keys], 1)]))
            first = merged.representatives[merged.inverse[len(old) :]]
            new = first == torch.arange(len(old), len(old) + len(at), device=at.device)
            ids = torch.full_like(at, NONE)
            ids[new] = below.add(above, x[new], group[new], at[new], row[new])
            ids = torch.cat([old, ids])[first]
        below.count.index_add_(0, ids, torch.ones_like(ids))
        return ids

    def _propose(self, depth: int, at: Tensor, group: Tensor, seeds: Tensor) -> Tensor:
        run, above, step = self.run, self.levels[depth], depth - 1
        nodes, which = torch.unique(at, return_inverse=True)
        problem = run.problem[above.group[nodes] * run.steering.particles]
        frontier = run.predictor.distinct(above.x[nodes], problem, step, self.levels[depth - 1].state, above.row[nodes])

        def draw(states: States, ancestors: Tensor, some: Tensor | None) -> tuple[Tensor, Tensor | None]:
            assert states.output is not None
            some = torch.arange(len(at), device=at.device) if some is None else some
            children = run.scene.bound.propose(
                states.x, states.output, step=step, group=group[some], seed=seeds[some], ancestors=ancestors,
                slots=torch.zeros_like(some),
            )  # fmt: skip
            return children, None

        children, _, state, rows = run.predictor.propose(frontier, frontier.inverse[which], draw, 1)
        if depth < self.steps:
            above.keep_state(at, state, rows)
        return children[:, 0]
