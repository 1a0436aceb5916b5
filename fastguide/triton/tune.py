"""Measure on the GPU at hand which configuration of each kernel is the fastest: ``python -m fastguide.triton.tune``.

A `Workload` calls operations as a guided step does, at some power of two of particles. Each kernel that it launches is tried in
each configuration of `fastguide.triton.tuning.CONFIGS`, the other kernels by default, and the whole call is timed from a
captured graph, so that the host does not count. A configuration is taken where calls get faster by 2 % at least, in the mean of
those that launch the kernel at that size, and their results keep their bits. What is found goes to a file that later processes
read.
"""

from __future__ import annotations

import argparse
import math
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastguide import ops
from fastguide.deferred import Deferred, deferred
from fastguide.triton import tuning
from fastguide.triton.tuning import CONFIGS, Config
from fastguide.triton.unique import unique
from fastguide.values.compiled import MLP, Linear, MotifCount, PositionWeightMatrix, Potts, Quadratic, TritonFunction

SIZES = (10, 12, 14, 16, 18, 20, 22)
"""Exponents of the numbers of particles that are measured, each for the one below it too."""
WORTH = 0.98
"""Of the time of the default, what another configuration may take at most."""
Clock = Callable[[Callable[[], Any]], float]
Key = tuple[str, int]
"""A kernel and a size class."""
Costs = dict[Key, list[dict[Config, float]]]


class Workload(NamedTuple):
    """Calls whose kernels are measured.

    Attributes:
        name: for the log.
        most: exponent of the most particles that it takes, for want of memory beyond.
        make: makes the call, which returns tensors, from a number of particles and a device.
    """

    name: str
    most: int
    make: Callable[[int, torch.device], Callable[[], Sequence[Tensor]]]


def tune(
    device: torch.device | None = None,
    *,
    sizes: Sequence[int] = SIZES,
    workloads: Sequence[Workload] | None = None,
    clock: Clock | None = None,
    say: Callable[[str], object] = print,
) -> Path:
    """Measure the kernels on a device, and keep what is faster than the defaults; return the file.

    Args:
        device: the current GPU by default. Choices hold for all devices of its name.
        sizes: exponents of numbers of particles.
        workloads: those of this module by default.
        clock: returns the seconds, or any other cost, of a call; by default a graph of it is replayed.
        say: gets a line a workload and size.
    """
    device = torch.device("cuda", torch.cuda.current_device()) if device is None else device
    costs: Costs = {}
    measure = partial(_measure, device=device, clock=replayed if clock is None else clock)
    for workload in WORKLOADS if workloads is None else workloads:
        for size in sizes:
            if size <= workload.most:
                with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
                    found = measure(workload.make(2**size, device))
                for key, cost in found.items():
                    costs.setdefault(key, []).append(cost)
                faster = {k: c for (k, _), c in _worth_taking({key: [cost] for key, cost in found.items()}).items()}
                told = ", ".join(f"{kernel} {tuple(chosen)}" for kernel, chosen in faster.items())
                say(f"{workload.name}, 2^{size}: {told or 'defaults'}")
    path = tuning.write_choices(tuning.device_name(device), _worth_taking(costs))
    tuning.forget()
    return path


def _measure(
    call: Callable[[], Sequence[Tensor]], device: torch.device, clock: Clock
) -> dict[Key, dict[Config, float]]:
    """Return what a call costs with each configuration of a kernel, as a share of the default, by kernel and size class."""

    def timed(configs: dict[str, Config]) -> tuple[float, list[Tensor], dict[str, set[int]]]:
        with tuning.fixed(device, configs) as choices, deferred(Deferred()):
            results = [x.clone() for x in call()]
            return clock(call), results, choices.asked

    default, expected, asked = timed({})
    found: dict[Key, dict[Config, float]] = {}
    for kernel, sizes in asked.items():
        costs = {}
        for other in CONFIGS[kernel][1:]:
            seconds, results, _ = timed({kernel: other})
            costs[other] = seconds / default
            if not all(torch.equal(a, b) for a, b in zip(expected, results, strict=True)):
                costs[other] = math.inf
                warnings.warn(
                    f"{kernel}: tile and warps {tuple(other)} give other bits than the default and are not used; "
                    "please report this",
                    RuntimeWarning,
                    stacklevel=3,
                )
        found |= {(kernel, size): costs for size in sizes}
    return found


def _worth_taking(costs: Mapping[Key, Sequence[Mapping[Config, float]]]) -> dict[Key, Config]:
    """Return the configuration of least cost, over all calls, of each kernel and size where that is worth it.

    A size that was measured stands for the one below, half of it, as well.
    """
    taken: dict[Key, Config] = {}
    for (kernel, size), calls in costs.items():
        means = {c: math.fsum(math.log(call[c]) for call in calls) / len(calls) for c in CONFIGS[kernel][1:]}
        best = min(means, key=means.__getitem__, default=None)
        if best is not None and means[best] < math.log(WORTH):
            taken[kernel, size] = best
    below = {(kernel, size - 1): c for (kernel, size), c in taken.items() if (kernel, size - 1) not in costs}
    return taken | below


def replayed(call: Callable[[], Any]) -> float:
    """Return the seconds of a call when a graph of it is replayed: the median of many, after a warm-up."""
    from triton.testing import do_bench_cudagraph

    milliseconds: float = do_bench_cudagraph(call, rep=20, return_mode="median")
    return milliseconds / 1000


def _normal(*shape: int, device: torch.device) -> Tensor:
    return torch.randn(shape, device=device, generator=torch.Generator(device).manual_seed(0))


def _integers(high: int, *shape: int, device: torch.device) -> Tensor:
    return torch.randint(high, shape, device=device, generator=torch.Generator(device).manual_seed(0))


def _tensors(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    return [x for x in result if isinstance(x, Tensor)]


def _one_group(n: int, device: torch.device) -> Callable[[], Sequence[Tensor]]:
    x, values = _normal(n, device=device), _normal(n, device=device)
    calls: list[Callable[[], Any]] = []
    for rule in ("systematic", "multinomial", "gumbel_topk"):
        calls.append(partial(ops.select, x, rule=rule, order="slots", backend="triton"))
    calls.append(lambda: ops.select(x, rule="systematic", backend="triton"))
    calls.append(lambda: ops.reweight_select(x, values, values, 2.0, 1.0, running=values, backend="triton"))
    return lambda: [tensor for call in calls for tensor in _tensors(call())]


def _groups(width: int) -> Callable[[int, torch.device], Callable[[], Sequence[Tensor]]]:
    def make(n: int, device: torch.device) -> Callable[[], Sequence[Tensor]]:
        x, values = (_normal(max(1, n // width), width, device=device) for _ in range(2))

        def call() -> list[Tensor]:
            selected = _tensors(ops.select(x, rule="systematic", order="slots", backend="triton"))
            return selected + _tensors(ops.reweight_select(x, values, values, 2.0, 1.0, backend="triton"))

        return call

    return make


def _moving(row: int, dtype: torch.dtype) -> Callable[[int, torch.device], Callable[[], Sequence[Tensor]]]:
    def make(n: int, device: torch.device) -> Callable[[], Sequence[Tensor]]:
        states = _integers(20, n, row, device=device).to(dtype)
        ancestors = _integers(n, n, device=device)
        return lambda: [ops.move(states, ancestors, backend="triton")]

    return make


def _equal_rows(n: int, device: torch.device) -> Callable[[], Sequence[Tensor]]:
    rows = _integers(20, max(1, n // 4), 76, device=device)[_integers(max(1, n // 4), n, device=device)].to(torch.uint8)

    named, inverse, counts = (torch.empty(n, dtype=torch.int64, device=device) for _ in range(3))
    distinct = counts.new_empty(1)

    def call() -> list[Tensor]:
        # The operation reads how many rows are distinct, which no graph can.
        unique(rows, named, inverse, counts, distinct)
        return [inverse, distinct]

    return call


def _masked(length: int, vocab: int) -> Callable[[int, torch.device], Callable[[], Sequence[Tensor]]]:
    def make(n: int, device: torch.device) -> Callable[[], Sequence[Tensor]]:
        tokens = _integers(vocab, n, length, device=device)
        tokens[_normal(n, length, device=device) > 0] = vocab
        logits = _normal(n, length, vocab, device=device)
        draw: dict[str, Any] = {"seed": 1, "backend": "triton"}

        def call() -> list[Tensor]:
            revealed = ops.masked_step(tokens, logits, reveal_probability=0.1, **draw)
            ranked = ops.masked_step(tokens, logits, reveal_count=2, order="confidence", **draw)
            ratio = ops.masked_log_ratio(tokens, revealed, logits, logits, backend="triton")
            return [revealed, ranked, ratio]

        return call

    return make


def _gaussian(size: int) -> Callable[[int, torch.device], Callable[[], Sequence[Tensor]]]:
    def make(n: int, device: torch.device) -> Callable[[], Sequence[Tensor]]:
        x = _normal(n, size, device=device)
        step: dict[str, Any] = {"x_coefficient": 0.9, "prediction_coefficient": 0.1, "sigma": 0.5, "backend": "triton"}

        def call() -> list[Tensor]:
            children = ops.gaussian_step(x, x, seed=1, **step)
            return [children, ops.gaussian_log_ratio(children, x, x, shift=x, **step)]

        return call

    return make


@triton.jit
def _sum_of_state(state, present, columns):
    total = tl.zeros(state.shape, tl.float32)
    for d in range(columns):
        total += tl.load(state + d, mask=present, other=0.0)
    return total


def _values(n: int, device: torch.device) -> Callable[[], Sequence[Tensor]]:
    x, w, square = _normal(n, 64, device=device), _normal(64, device=device), _normal(64, 64, device=device)
    values: list[Any] = [Linear(w), Quadratic(w, w), Quadratic(square, w)]
    values += [MLP([square, _normal(1, 64, device=device)], [w, w[:1]], "silu"), TritonFunction(_sum_of_state)]
    return lambda: [ops.evaluate(value, x, backend="triton") for value in values]


def _token_values(n: int, device: torch.device) -> Callable[[], Sequence[Tensor]]:
    x, scores = _integers(20, n, 76, device=device), _normal(76, 20, device=device)
    values: list[Any] = [PositionWeightMatrix(scores), MotifCount([[3, 5, 3]], 20)]
    values.append(Potts(scores, _normal(76, 76, 20, 20, device=device)))
    return lambda: [ops.evaluate(value, x, backend="triton") for value in values]


WORKLOADS = (
    Workload("select and reweight_select, one group", 24, _one_group),
    Workload("the same, groups of 8", 24, _groups(8)),
    Workload("the same, groups of 1,024", 24, _groups(1024)),
    Workload("move, 76 bytes", 24, _moving(76, torch.uint8)),
    Workload("move, 1 KiB", 22, _moving(256, torch.float32)),
    Workload("unique, 76 bytes", 22, _equal_rows),
    Workload("masked_step and masked_log_ratio, 64 x 22", 18, _masked(64, 22)),
    Workload("the same, 16 x 32,000", 12, _masked(16, 32_000)),
    Workload("gaussian_step and gaussian_log_ratio, 64", 20, _gaussian(64)),
    Workload("the same, 3,072", 16, _gaussian(3072)),
    Workload("evaluate, real states", 20, _values),
    Workload("evaluate, tokens", 18, _token_values),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and say where the choices are kept."""
    parser = argparse.ArgumentParser(
        prog="python -m fastguide.triton.tune", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=SIZES, metavar="EXPONENT", help="of numbers of particles"
    )
    given = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print(f"{parser.prog}: error: no GPU that torch can use", file=sys.stderr)
        return 2
    print(f"kept in {tune(sizes=given.sizes)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
