"""Numbers of a step that are read from the device, so that one recorded step serves for all of its kind.

A CUDA graph repeats launches with the arguments they had when it was captured. What changes from step to step (the number of
the step in the random streams, noise levels, coefficients) therefore has to stand in memory. Code that takes such numbers
asks for them here: outside `running` it gets plain numbers, inside it tensors whose contents follow the clock. Python still
runs with the number of the step at which it was recorded, which decides what is done, but never with which numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor


class Clock:
    """How many steps the device is ahead of Python.

    Attributes:
        offset: ``[1]`` int64 on the device.
    """

    def __init__(self, device: torch.device) -> None:
        self.offset = torch.zeros(1, dtype=torch.int64, device=device)
        self._tables: dict[tuple[Any, ...], Tensor] = {}

    def table(self, numbers: tuple[Any, ...]) -> Tensor:
        """Return numbers as float64 on the device; they are copied there once, before anything is captured."""
        if numbers not in self._tables:
            self._tables[numbers] = torch.tensor(numbers, dtype=torch.float64, device=self.offset.device)
        return self._tables[numbers]


_running: ContextVar[Clock | None] = ContextVar("fastguide_clock", default=None)


@contextmanager
def running(clock: Clock) -> Iterator[None]:
    """Let the numbers of steps follow ``clock`` in the block."""
    token = _running.set(clock)
    try:
        yield
    finally:
        _running.reset(token)


def is_running() -> bool:
    """Whether Python's number of the step may be another than the device's."""
    return _running.get() is not None


def number(step: int) -> int | Tensor:
    """Return ``step``, or the number ``[1]`` int64 on the device that stands for it."""
    clock = _running.get()
    return step if clock is None else clock.offset + step


def entry(numbers: Sequence[float], step: int) -> float | Tensor:
    """Return ``numbers[step]``, the last one beyond their end: a number, or ``[1]`` float64 on the device."""
    row = _row(tuple(numbers), step)
    return row if isinstance(row, Tensor) else numbers[row]


def entries(rows: Sequence[tuple[float, ...]], step: int) -> tuple[float | Tensor, ...]:
    """Return the numbers of ``rows[step]``, each as `entry` does."""
    row = _row(tuple(rows), step)
    return torch.split(row[0], 1) if isinstance(row, Tensor) else rows[row]


def _row(table: tuple[Any, ...], step: int) -> int | Tensor:
    """Return which row of a table step ``step`` reads, or that row itself, on the device."""
    last = len(table) - 1
    clock = _running.get()
    if clock is None:
        return min(step, last)
    return clock.table(table).index_select(0, (clock.offset + step).clamp_(max=last))
