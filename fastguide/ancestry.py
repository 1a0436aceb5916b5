"""Who descends from whom: the genealogy of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

_CPU = torch.device("cpu")


@dataclass
class Ancestry:
    """The selected children of every step.

    Attributes:
        groups: G. particles: N.
        device: where the children of each step are kept, until `settle` brings them to the CPU.
        children: per step ``[G, N]`` int32: the child ``n·M + m`` that went on in each slot; its parent's slot is
            ``child // M``.
        branches: M of each step.
        roots: ``[G, N]`` int64: the slot at the start that each particle descends from.
    """

    groups: int
    particles: int
    device: torch.device = _CPU
    children: list[Tensor] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    roots: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.roots = torch.arange(self.particles, device=self.device).expand(self.groups, self.particles)

    def append(self, children: Tensor, branch: int = 1) -> None:
        """Record the selected children ``[G, N]`` of a step."""
        self.children.append(children.to(torch.int32))
        self.branches.append(branch)
        self.follow(children // branch)

    def follow(self, parents: Tensor) -> tuple[Tensor, Tensor]:
        """Take the roots on to those whose parents ``[G, N]`` these are.

        Returns:
            the number ``[G]`` of distinct parents, and of distinct particles of the first step.
        """
        self.roots = self.roots.gather(1, parents)
        return self._distinct(parents), self._distinct(self.roots)

    def settle(self) -> None:
        """Bring everything to the CPU, when the run is over."""
        self.device = _CPU
        self.children = [children.cpu() for children in self.children]
        self.roots = self.roots.cpu()

    @property
    def parents(self) -> Tensor:
        """``[T, G, N]`` int64: the slot, before each step, of the parent of the particle in each slot after it."""
        branches = torch.tensor(self.branches, device="cpu")[:, None, None]
        return torch.stack(self.children).to(torch.int64) // branches

    def lineage(self, particle: int, group: int = 0) -> tuple[list[int], list[int]]:
        """Return the slots and the child numbers of one final particle's ancestors.

        Returns:
            ``slots``: T + 1 slots, from the start to ``particle``; ``children``: T numbers ``n·M + m``, one a step.
        """
        slots, children = [particle], []
        for step, branch in zip(reversed(self.children), reversed(self.branches), strict=True):
            child = int(step[group, slots[-1]])
            children.append(child)
            slots.append(child // branch)
        return slots[::-1], children[::-1]

    def _distinct(self, slots: Tensor) -> Tensor:
        # Marks, not a sort: a sort of a million slots costs more than the selection they came from.
        marks = torch.zeros(self.groups, self.particles, dtype=torch.bool, device=slots.device)
        return marks.scatter_(1, slots, True).sum(dim=1)
