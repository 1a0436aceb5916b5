"""One `OpSpec` an operation: its name, inputs to try it on, and what is registered with torch.

Tests of registration and of agreement between backends run over `SPECS`; an operation appends its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastguide import _cpu, ops

BUILDS = [(level, threads) for level in _cpu.levels() for threads in (1, 2, 4)]
"""SIMD levels of this processor, each with one, two and four threads: all must give the bits of the reference."""
REFERENCE = ("portable", 1)
"""The reference needs no kernel, and its many small torch operations run best on one thread."""


@contextmanager
def build(level: str, threads: int) -> Iterator[None]:
    """Run the kernels of one SIMD level on a number of threads, and restore what was."""
    before = _cpu.level(), torch.get_num_threads()
    try:
        _cpu.force_level(level)
        torch.set_num_threads(threads)
        yield
    finally:
        _cpu.force_level(before[0])
        torch.set_num_threads(before[1])


def assert_same_bits(expected: Any, got: Any, what: str) -> None:
    """Assert that two results, tuples of tensors or None, agree bit for bit."""
    for i, (a, b) in enumerate(zip(expected, got, strict=True)):
        if a is None:
            assert b is None, f"{what}: field {i}"
            continue
        assert a.shape == b.shape, f"{what}: field {i}"
        assert a.dtype == b.dtype, f"{what}: field {i}"
        differ = (a != b).flatten().nonzero().flatten()
        assert len(differ) == 0, (
            f"{what}: field {i} differs at {differ[:5].tolist()} of {a.numel()}: "
            f"{a.flatten()[differ[:5]].tolist()} and {b.flatten()[differ[:5]].tolist()}"
        )


def builds() -> Iterator[str]:
    """Put every one of `BUILDS` in force, one after the other, and say which it is."""
    for level, threads in BUILDS:
        with build(level, threads):
            yield f"{level}, {threads} threads"


@dataclass(frozen=True)
class OpSpec:
    """What the shared tests need to know about an operation.

    Attributes:
        name: the public name in ``fastguide.ops``.
        call: the public function; it takes ``backend=``.
        samples: yields keyword arguments of ``call``.
        registered: yields positional arguments of ``torch.ops.fastguide.<name>``.
    """

    name: str
    call: Callable[..., Any]
    samples: Callable[[], Iterator[dict[str, Any]]]
    registered: Callable[[], Iterator[tuple[Any, ...]]]


def _normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


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


def _select_samples() -> Iterator[dict[str, Any]]:
    for rule in ("systematic", "stratified", "multinomial", "residual", "argmax", "topk", "gumbel_topk"):
        yield {"log_weights": _normal(9), "rule": rule}
        yield {"log_weights": _normal(3, 40, dtype=torch.float64), "k": 7, "rule": rule, "seed": 5, "step": 2}
        yield {"log_weights": _normal(2, 3, 8), "rule": rule, "order": "slots", "seed": torch.tensor([4, 9])}


def _select_registered() -> Iterator[tuple[Any, ...]]:
    yield (_normal(9), 4, "systematic", "sorted", None, 3, 1, False, None)
    yield (_normal(2, 3, 8, dtype=torch.float64), 8, "residual", "slots", torch.tensor([4, 9]), 0, 0, True, "torch")


def _reweight_samples() -> Iterator[dict[str, Any]]:
    particles = {
        "log_weights": _normal(3, 50, seed=1),
        "values": _normal(3, 50),
        "previous_values": _normal(3, 50, seed=2),
    }
    for threshold in (0.0, 0.6, 1.0):
        yield {**particles, "beta": 1.5, "previous_beta": 0.5, "ess_threshold": threshold}
        yield {
            **{name: x.double() for name, x in particles.items()},
            "beta": torch.tensor([0.1, 2.0, 9.0]),
            "previous_beta": 0.5,
            "log_ratio": _normal(3, 50, dtype=torch.float64, seed=3),
            "running": torch.arange(150).view(3, 50),
            "ess_threshold": threshold,
        }


def _reweight_registered() -> Iterator[tuple[Any, ...]]:
    x = _normal(2, 9)
    yield (x, x, x, None, 2.0, None, 1.0, None, None, "systematic", 0.5, None, 3, 1, False, None)
    beta = torch.ones(2, dtype=torch.float64)
    yield (x, x, x, beta, 0.0, beta, 0.0, x, x, "residual", 1.0, torch.tensor([4, 9]), 0, 0, True, None)


def _masked_step_samples() -> Iterator[dict[str, Any]]:
    tokens, logits = masked_states(6, 9, 5)
    yield {"tokens": tokens, "logits": logits, "reveal_probability": 0.5, "seed": 3}
    yield {
        "tokens": tokens,
        "logits": logits,
        "reveal_probability": 1.0,
        "temperature": 0.5,
        "bias": torch.zeros(5),
        "ancestors": torch.tensor([3, 0, 0, 2, 1, 1]),
        "branch": 2,
        "seed": torch.tensor([7, 8]),
        "step": 4,
        "lengths": torch.tensor([9, 6]),
    }


def _masked_step_registered() -> Iterator[tuple[Any, ...]]:
    tokens, logits = masked_states(4, 9, 5)
    ancestors, seeds = torch.tensor([3, 0, 0, 2, 1, 1]), torch.tensor([7, 8])
    yield (tokens, logits, 0.5, 1.0, None, None, 1, None, 3, 0, None, None, None)
    yield (tokens, logits, 1.0, 2.0, torch.zeros(5), ancestors, 2, seeds, 0, 4, None, torch.tensor([9, 6]), "torch")


def _masked_mode_samples() -> Iterator[dict[str, Any]]:
    tokens, logits = masked_states(4, 9, 5)
    yield {"tokens": tokens, "logits": logits}
    yield {
        "tokens": tokens,
        "logits": logits,
        "rule": "draw",
        "temperature": 0.5,
        "seed": torch.tensor([7, 8]),
        "step": 2,
    }


def _masked_mode_registered() -> Iterator[tuple[Any, ...]]:
    tokens, logits = masked_states(4, 9, 5)
    yield (tokens, logits, 0.0, None, None, 0, 0, None, None, None)
    yield (tokens, logits, 1.5, torch.zeros(9, 5), torch.tensor([7, 8]), 0, 4, None, torch.tensor([9, 6]), "torch")


def _unique_samples() -> Iterator[dict[str, Any]]:
    yield {"rows": torch.tensor([[1, 2], [3, 4], [1, 2]])}
    yield {"rows": torch.randint(0, 3, (500, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)}


def _unique_registered() -> Iterator[tuple[Any, ...]]:
    yield (torch.tensor([[1, 2], [3, 4], [1, 2]]), None)


def _move_samples() -> Iterator[dict[str, Any]]:
    tensors = [torch.arange(12.0).view(6, 2), torch.arange(6)]
    yield {"tensors": tensors, "ancestors": torch.tensor([[2, 0, 1, 1], [0, 0, 0, 2]], dtype=torch.int32)}
    yield {"tensors": [_normal(40, 3, 7)], "ancestors": torch.arange(40).flip(0)}


def _move_registered() -> Iterator[tuple[Any, ...]]:
    tensors = [torch.arange(12.0).view(6, 2), torch.arange(6)]
    yield (tensors, torch.tensor([[2, 0, 1, 1], [0, 0, 0, 2]], dtype=torch.int32), None)


SPECS = [
    OpSpec("masked_mode", ops.masked_mode, _masked_mode_samples, _masked_mode_registered),
    OpSpec("masked_step", ops.masked_step, _masked_step_samples, _masked_step_registered),
    OpSpec("move", ops.move, _move_samples, _move_registered),
    OpSpec("reweight_select", ops.reweight_select, _reweight_samples, _reweight_registered),
    OpSpec("select", ops.select, _select_samples, _select_registered),
    OpSpec("unique", ops.unique, _unique_samples, _unique_registered),
]
