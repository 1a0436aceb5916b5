"""What the groups of a run are asked: a condition, a reward and a length each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from fastguide.memory import Memory
from fastguide.models.protocol import Denoiser
from fastguide.rewards.calls import RewardCalls
from fastguide.rewards.protocol import wrap as wrap_reward

Spans = tuple[tuple[int, int], ...]
"""``(problem, rows)`` of each stretch of rows of one problem, in order: what the host knows of rows that were not merged."""


@dataclass
class Problem:
    """A condition, a reward and a length (None: whole); groups that share all three share rows of calls.

    ``decode_soft`` turns soft samples of tokens into what the reward's `soft` takes; None where the caller decodes.
    """

    condition: Any
    reward: RewardCalls
    length: int | None
    decode_soft: Callable[[Tensor], Tensor] | None

    def rewards(self, x0: Tensor) -> Tensor:
        """Return ``[n]`` float64 rewards of clean samples ``[n, *shape]``, padding included."""
        return self.reward(x0 if self.length is None else x0[:, : self.length])

    def soft(self, x0: Tensor, *, tokens: bool) -> Tensor:
        """Return ``[n]`` rewards that depend by a gradient on real samples ``[n, *shape]`` or soft tokens ``[n, L, V]``."""
        if not tokens:
            return self.reward.soft(self.reward.decode(x0), tokens=False)
        if self.decode_soft is None:
            raise TypeError(
                f"decode: the reward '{self.reward.reward.name}' sees what decode= makes of tokens, and no gradient flows "
                'through that; leave decode= out, or take gradient="exact" and the value PosteriorMean("argmax")'
            )
        x0 = x0 if self.length is None else x0[:, : self.length]
        return self.reward.soft(self.decode_soft(x0), tokens=True)


class Problems:
    """The distinct problems of a run.

    Attributes:
        of_group: the problem of each group.
        first_group: ``[P]`` int64, one group of each problem.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        conditions: list[Any],
        reward: Any,
        decode: Any,
        lengths: Tensor | None,
        memory: Memory,
        call_rows: int,
        device: torch.device,
    ) -> None:
        groups = len(conditions)
        rewards, decodes = per_group("reward", reward, groups), per_group("decode", decode, groups)
        of_length: list[int | None] = [None] * groups if lengths is None else lengths.tolist()
        numbers: dict[tuple[int | None, ...], int] = {}
        self._problems: list[Problem] = []
        of_group: list[int] = []
        for c, r, d, length in zip(conditions, rewards, decodes, of_length, strict=True):
            key = (id(c), id(r), id(d), length)
            if key not in numbers:
                numbers[key] = len(self._problems)
                seen = d or partial(denoiser.decode, condition=c)
                calls = RewardCalls(wrap_reward(r), seen, call_rows, memory.ragged, memory.merge, memory.remember)
                soft = None if d else partial(denoiser.decode_soft, condition=c)
                self._problems.append(Problem(c, calls, length, soft))
            of_group.append(numbers[key])
        self.of_group = tuple(of_group)
        self.first_group = torch.tensor([of_group.index(p) for p in range(len(self))], device=device)

    def __len__(self) -> int:
        return len(self._problems)

    def __getitem__(self, number: int) -> Problem:
        return self._problems[number]

    @property
    def reward_rows(self) -> int:
        """Samples evaluated so far."""
        return sum(p.reward.computed for p in self._problems)

    def spans(self, rows: int) -> Spans:
        """Return whose ``rows`` are that stand group after group, as many of each."""
        each = rows // len(self.of_group)
        return tuple((p, each * sum(1 for _ in groups)) for p, groups in groupby(self.of_group))

    def rewards(self, x0: Tensor, problem: Tensor, spans: Spans | None = None) -> Tensor:
        """Return the float64 rewards of clean samples, of problem ``problem[u]`` each.

        Args:
            x0: ``[U, *shape]``.
            problem: ``[U]``.
            spans: as in `members`.
        """
        if len(self) == 1:
            return self[0].rewards(x0)
        out = torch.empty(len(x0), dtype=torch.float64, device=x0.device)
        for p, members in zip(self._problems, self.members(problem, spans), strict=True):
            if len(members):
                out[members] = p.rewards(x0[members])
        return out

    def members(self, problem: Tensor, spans: Spans | None = None) -> list[Tensor]:
        """Return, for each problem, which of the rows of ``problem`` ``[U]`` are its own.

        With ``spans`` nothing is read from the device; None: the host does not know them.
        """
        if len(self) == 1:
            return [torch.arange(len(problem), device=problem.device)]
        if spans is None:
            return [(problem == i).nonzero()[:, 0] for i in range(len(self))]
        own: list[list[Tensor]] = [[] for _ in self._problems]
        start = 0
        for i, rows in spans:
            own[i].append(torch.arange(start, start + rows, device=problem.device))
            start += rows
        return [torch.cat(parts) if parts else problem.new_empty(0) for parts in own]


def part_of(spans: Spans | None, start: int, rows: int) -> Spans | None:
    """Return the spans of ``rows`` rows from row ``start`` on."""
    if spans is None:
        return None
    parts, first = [], 0
    for problem, count in spans:
        inside = min(first + count, start + rows) - max(first, start)
        if inside > 0:
            parts.append((problem, inside))
        first += count
    return tuple(parts)


def per_group(name: str, value: Any, groups: int) -> list[Any]:
    """Return one value a group: those of a sequence, or the same for all."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != groups:
            raise ValueError(f"{name}: expected one for each of the {groups} groups, got {len(value)}")
        return list(value)
    return [value] * groups
