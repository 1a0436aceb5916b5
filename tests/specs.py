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

import fastguide as fg
from fastguide import _cpu, ops

BUILDS = [(level, threads) for level in _cpu.levels() for threads in (1, 2)] + [(_cpu.level(), 4)]
"""SIMD levels of this processor, each with one thread and with two, and the best with four: all give one set of bits."""
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
    yield (_normal(9), 4, "systematic", "sorted", None, 3, None, 1, False, None)
    x, seeds = _normal(2, 3, 8, dtype=torch.float64), torch.tensor([4, 9])
    yield (x, 8, "residual", "slots", seeds, 0, torch.tensor([5]), 0, True, "torch")


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
    yield (x, x, x, None, 2.0, None, 1.0, None, None, "systematic", 0.5, None, 3, None, 1, False, None)
    beta, seeds = torch.ones(2, dtype=torch.float64), torch.tensor([4, 9])
    yield (x, x, x, beta, 0.0, beta, 0.0, x, x, "residual", 1.0, seeds, 0, torch.tensor([5]), 0, True, None)


def _gaussian_step_samples() -> Iterator[dict[str, Any]]:
    numbers = {"x_coefficient": 0.9, "prediction_coefficient": -0.3, "sigma": 0.5}
    yield {"x": _normal(6, 9), "prediction": _normal(6, 9, seed=1), **numbers}
    yield {
        "x": _normal(5, 3, 70),
        "prediction": _normal(5, 3, 70, seed=1).to(torch.bfloat16),
        **numbers,
        "sigma": torch.tensor([0.5, 0.0, 2.0]),
        "shift": _normal(5, 3, 70, seed=2),
        "shift_coefficient": 0.1,
        "ancestors": torch.tensor([4, 0, 0, 2, 1, 3]),
        "branch": 3,
        "seed": torch.tensor([7, 8, 9]),
        "step": 4,
    }


def _gaussian_step_registered() -> Iterator[tuple[Any, ...]]:
    x, numbers = _normal(4, 6), [0.9, -0.3, 1.0, 0.5]
    ancestors, seeds = torch.tensor([3, 0, 0, 2]), torch.tensor([7, 8])
    yield (x, x + 1, None, None, numbers, None, 1, None, 3, None, 0, None, None)
    yield (
        x,
        x + 1,
        x.half(),
        torch.full((4, 2), 0.5),
        numbers,
        ancestors,
        2,
        seeds,
        0,
        torch.tensor(4),
        0,
        None,
        "torch",
    )


def _gaussian_log_ratio_samples() -> Iterator[dict[str, Any]]:
    coefficients = {"x_coefficient": 0.9, "prediction_coefficient": -0.3, "sigma": 0.5}
    x, prediction, shift = (_normal(5, 3, 70, seed=s) for s in range(3))
    yield {"children": _normal(5, 2, 3, 70, seed=3), "x": x, "prediction": prediction, "shift": shift, **coefficients}
    yield {
        "children": _normal(4, 1, 3, 70, seed=3),
        "x": x,
        "prediction": prediction.half(),
        "shift": shift.to(torch.bfloat16),
        **coefficients,
        "sigma": torch.tensor([0.5, 2.0]),
        "shift_coefficient": 0.1,
        "ancestors": torch.tensor([4, 0, 0, 2], dtype=torch.int32),
    }


def _gaussian_log_ratio_registered() -> Iterator[tuple[Any, ...]]:
    x, numbers, ancestors = _normal(4, 6), [0.9, -0.3, 1.0, 0.5], torch.tensor([3, 0])
    yield (_normal(4, 2, 6, seed=1), x, x + 1, x - 1, None, numbers, None, None)
    yield (_normal(2, 1, 6, seed=1), x, x.half(), x - 1, torch.full((4, 2), 0.5), numbers, ancestors, "torch")


def _masked_log_ratio_samples() -> Iterator[dict[str, Any]]:
    for vocab in (5, 600):
        tokens, logits = masked_states(6, 9, vocab)
        shift, ancestors = _normal(6, 9, vocab, seed=1), torch.tensor([3, 0, 0, 2])
        settings = {"ancestors": ancestors, "bias": _normal(9, vocab, seed=2), "temperature": 0.7, "top_k": 4}
        children = ops.masked_step(tokens, logits, reveal_probability=0.5, branch=3, **settings)
        yield {
            "tokens": tokens,
            "children": children,
            "logits": logits,
            "shift": shift,
            "lengths": torch.tensor([9, 6]),
            **settings,
        }


def _masked_log_ratio_registered() -> Iterator[tuple[Any, ...]]:
    tokens, logits = masked_states(4, 9, 5)
    children = ops.masked_step(tokens, logits, reveal_probability=0.5, temperature=0.5, top_k=3, top_p=0.9)
    shift, bias, lengths = _normal(4, 9, 5), torch.zeros(5), torch.tensor([9, 6])
    yield (tokens, children, logits, shift, 1.0, 0, 1.0, None, None, None, None)
    yield (tokens, children, logits, shift, 2.0, 3, 0.9, bias, torch.arange(4), lengths, "torch")


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
    for order in ("random", "confidence"):
        yield {
            "tokens": tokens,
            "logits": logits,
            "reveal_count": torch.tensor([2, 1]),
            "order": order,
            "remask_probability": 0.3,
            "frozen": tokens == 1,
            "top_k": 4,
            "top_p": 0.8,
            "shift": logits.flip(1).clamp(min=-3),
            "branch": 2,
            "seed": torch.tensor([7, 8]),
        }


def _masked_step_registered() -> Iterator[tuple[Any, ...]]:
    tokens, logits = masked_states(4, 9, 5)
    ancestors, seeds = torch.tensor([3, 0, 0, 2, 1, 1]), torch.tensor([7, 8])
    by_chance = (None, 0.5, None, -1, False, None, 0.0, None)
    yield (tokens, logits, *by_chance, 1.0, 0, 1.0, None, None, None, 1, None, 3, None, 0, None, None, None)
    remask = torch.full((), 0.1, dtype=torch.float64)
    by_count = (None, 0.0, torch.tensor([2, 3]), 0, True, remask, 0.0, torch.zeros(9, dtype=torch.bool))
    bias, shift, lengths, drawn = (
        torch.zeros(5),
        torch.zeros(4, 9, 5),
        torch.tensor([9, 6]),
        (seeds, 0, torch.tensor(4), 0),
    )
    yield (tokens, logits, *by_count, 2.0, 3, 0.9, bias, shift, ancestors, 2, *drawn, None, lengths, "torch")


def _evaluate_samples() -> Iterator[dict[str, Any]]:
    compiled, x, tokens = fg.values.compiled, _normal(70, 3, 7), torch.randint(0, 5, (300, 9))
    table = _normal(9, 5)
    for value in (
        compiled.Linear(_normal(21), 0.5),
        compiled.Quadratic(_normal(21), _normal(21, seed=1), 2.0),
        compiled.Quadratic(_normal(21, 21), _normal(21, seed=1)),
        compiled.MLP([_normal(19, 21), _normal(1, 19)], [_normal(19), _normal(1)], "silu"),
    ):
        yield {"value": value, "states": x}
    for value in (
        compiled.PositionWeightMatrix(table),
        compiled.MotifCount([[0, 1], [2]], 5),
        compiled.Potts(table, _normal(9, 9, 5, 5)),
    ):
        yield {"value": value, "states": tokens}


def _evaluate_registered() -> Iterator[tuple[Any, ...]]:
    yield (_normal(9, 3), "linear", [_normal(3), _normal(1)], [], None)
    yield (torch.randint(0, 5, (6, 4)), "position_weights", [_normal(4, 5)], [4, 5], "torch")


def _masked_mode_samples() -> Iterator[dict[str, Any]]:
    tokens, logits = masked_states(4, 9, 5)
    yield {"tokens": tokens, "logits": logits}
    yield {
        "tokens": tokens,
        "logits": logits,
        "rule": "draw",
        "temperature": 0.5,
        "top_p": 0.7,
        "seed": torch.tensor([7, 8]),
        "step": 2,
    }


def _masked_mode_registered() -> Iterator[tuple[Any, ...]]:
    tokens, logits = masked_states(4, 9, 5)
    yield (tokens, logits, 0.0, 0, 1.0, None, None, 0, None, 0, None, None, None)
    lengths, drawn = torch.tensor([9, 6]), (torch.tensor([7, 8]), 0, torch.tensor(4), 0)
    yield (tokens, logits, 1.5, 2, 0.5, torch.zeros(9, 5), *drawn, None, lengths, "torch")


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
    OpSpec("evaluate", ops.evaluate, _evaluate_samples, _evaluate_registered),
    OpSpec("gaussian_log_ratio", ops.gaussian_log_ratio, _gaussian_log_ratio_samples, _gaussian_log_ratio_registered),
    OpSpec("gaussian_step", ops.gaussian_step, _gaussian_step_samples, _gaussian_step_registered),
    OpSpec("masked_log_ratio", ops.masked_log_ratio, _masked_log_ratio_samples, _masked_log_ratio_registered),
    OpSpec("masked_mode", ops.masked_mode, _masked_mode_samples, _masked_mode_registered),
    OpSpec("masked_step", ops.masked_step, _masked_step_samples, _masked_step_registered),
    OpSpec("move", ops.move, _move_samples, _move_registered),
    OpSpec("reweight_select", ops.reweight_select, _reweight_samples, _reweight_registered),
    OpSpec("select", ops.select, _select_samples, _select_registered),
    OpSpec("unique", ops.unique, _unique_samples, _unique_registered),
]
