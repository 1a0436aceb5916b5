"""Specifications of ``masked_step``, ``masked_mode``, ``unique`` and ``move`` that drive their tests and opcheck."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

import fastguide.ops.masked_mode
import fastguide.ops.masked_step
import fastguide.ops.move
import fastguide.ops.unique  # noqa: F401 - importing the ops registers them with torch
from fastguide import _cpu


class OpSpec(NamedTuple):
    name: str
    op: Callable[..., Any]
    samples: Callable[[], list[tuple[Any, ...]]]


def cpu_variants(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Put every SIMD level and number of threads in force, one after the other, and restore what was."""
    before = _cpu.level()
    try:
        for level in _cpu.levels():
            _cpu.force_level(level)
            for threads in ("1", "2"):
                monkeypatch.setenv("FASTGUIDE_THREADS", threads)
                yield f"{level}, {threads} threads"
    finally:
        _cpu.force_level(before)


def masked_states(
    states: int, length: int, vocab: int, *, masked: float = 0.5, seed: int = 0, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Return tokens ``[U, L]``, a part of them masked, and logits ``[U, L, V]``, a fifth of them ``-inf``."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, vocab, (states, length), generator=generator)
    tokens[torch.rand(states, length, generator=generator) < masked] = vocab
    logits = torch.randn(states, length, vocab, generator=generator) * 3
    logits[torch.rand(states, length, vocab, generator=generator) < 0.2] = -torch.inf
    logits[..., generator.initial_seed() % vocab] = 0.5
    return tokens, logits.to(dtype)


def _masked_step_samples() -> list[tuple[Any, ...]]:
    tokens, logits = masked_states(4, 9, 5)
    ancestors, seeds = torch.tensor([3, 0, 0, 2, 1, 1]), torch.tensor([7, 8])
    return [
        (tokens, logits, 0.5, 1.0, None, None, 1, None, 3, 0, None, None, None),
        (tokens, logits, 1.0, 2.0, torch.zeros(5), ancestors, 2, seeds, 0, 4, None, torch.tensor([9, 6]), "torch"),
    ]


def _masked_mode_samples() -> list[tuple[Any, ...]]:
    tokens, logits = masked_states(4, 9, 5)
    return [
        (tokens, logits, 0.0, None, None, 0, 0, None, None, None),
        (tokens, logits, 1.5, torch.zeros(9, 5), torch.tensor([7, 8]), 0, 4, None, torch.tensor([9, 6]), "torch"),
    ]


def _move_samples() -> list[tuple[Any, ...]]:
    tensors = [torch.arange(12.0).view(6, 2), torch.arange(6)]
    return [(tensors, torch.tensor([[2, 0, 1, 1], [0, 0, 0, 2]], dtype=torch.int32), None)]


def _move_in_place_samples() -> list[tuple[Any, ...]]:
    return [([torch.arange(12.0).view(6, 2)], torch.tensor([[0, 0, 2], [1, 1, 2]]), None)]


MASKED_SPECS = [
    OpSpec("masked_step", torch.ops.fastguide.masked_step.default, _masked_step_samples),
    OpSpec("masked_mode", torch.ops.fastguide.masked_mode.default, _masked_mode_samples),
    OpSpec("unique", torch.ops.fastguide.unique.default, lambda: [(torch.tensor([[1, 2], [3, 4], [1, 2]]), None)]),
    OpSpec("move", torch.ops.fastguide.move.default, _move_samples),
    OpSpec("move_", torch.ops.fastguide.move_.default, _move_in_place_samples),
]
