"""Kernels at sizes that take each of their paths: what compute-sanitizer runs, ``python -m bench.gpu.exercise cuda|triton``.

``cuda``: every CUDA kernel. ``triton``: the kernels of selection in which threads of a program read from memory what others
have written, `TRITON`. racecheck sees hazards of shared memory only, and these also meet in the device's: so their results are
compared with the CPU's, several times over.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from fastguide import cuda, ops
from fastguide.values.compiled import Linear, Quadratic

TRITON = ("select_rows", "reweight_rows", "reweigh_blocks")
_STATES = ((1, torch.uint8), (77, torch.uint8), (3, torch.float32), (64, torch.float32), (130, torch.int64))


def main(which: str) -> None:
    """Run what ``which`` names on the GPU."""
    if not torch.cuda.is_available():
        print("SKIPPED: no GPU")
    elif which == "triton":
        for _ in range(5):
            exercise_triton(torch.device("cuda"), (20, 900, 4_000, 9_000))
        print(f"{', '.join(TRITON)} ran, with the results of the CPU")
    elif not cuda.available():
        print("SKIPPED: fastguide._cuda is not built")
    else:
        exercise_cuda()
        print("every CUDA kernel ran")


def exercise_cuda() -> None:
    for n in (1, 100, 900, 4_000, 4_097, 30_001):
        x, values, previous = (torch.randn(2, n, device="cuda") for _ in range(3))
        for rule in ("systematic", "stratified", "argmax"):
            for order in ("sorted", "slots"):
                ops.select(x, rule=rule, order=order, backend="cuda")
                ops.select(x.double(), rule=rule, order=order, backend="cuda")
        ops.select(x, 2 * n + 1, backend="cuda")
        running = torch.arange(2 * n, device="cuda").view(2, n)
        for threshold in (0.0, 1.0):
            out = ops.reweight_select(
                x, values, previous, 2.0, 1.0, running=running, ess_threshold=threshold, backend="cuda"
            )
        dominated = torch.full_like(x, -40.0)
        dominated[:, n // 2] = 0
        ops.select(dominated, backend="cuda")
        ops.select(dominated, order="slots", backend="cuda")
        states = [torch.randint(0, 3, (2 * n, w), device="cuda").to(t) for w, t in _STATES]
        ops.move(states, out.ancestors, backend="cuda")
        ops.move(states, out.ancestors, inplace=True, backend="cuda")
        for state in states:
            ops.unique(state, backend="cuda")
    torch.cuda.synchronize()


def exercise_triton(device: torch.device, sizes: tuple[int, ...]) -> None:
    """Run the kernels `TRITON` on groups of every size, several to a program and one, by rules of every kind."""
    for n in sizes:
        groups = 300 if n < 100 else 2
        x, values, previous = (torch.randn(groups, n) for _ in range(3))
        for rule in ("systematic", "multinomial", "residual"):
            _same(ops.select, device, log_weights=x, rule=rule, order="slots")
            _same(ops.select, device, log_weights=x, rule=rule, k=max(1, n // 3))
            rest = {"previous_values": previous, "beta": 1.5, "previous_beta": 0.5, "rule": rule, "ess_threshold": 0.7}
            _same(ops.reweight_select, device, log_weights=x, values=values, running=values, **rest)
        for value in (Linear(torch.ones(3), 0.5), Quadratic(torch.ones(3), torch.zeros(3), 0.5)):
            given = {"log_weights": x, "values": value, "states": torch.randn(groups * n, 3)}
            _same(ops.reweight_select, device, **given, **rest)


def _same(call: Any, device: torch.device, **arguments: Any) -> None:
    """Raise unless Triton gives what the CPU does."""
    there = {name: x.to(device) if isinstance(x, Tensor) else x for name, x in arguments.items()}
    for expected, got in zip(call(**arguments, backend="cpu"), call(**there, backend="triton"), strict=True):
        if expected is not None and not torch.equal(expected, got.cpu()):
            raise AssertionError(f"{call.__name__} of {list(arguments['log_weights'].shape)} differs from the CPU's")


if __name__ == "__main__":
    main(sys.argv[1])
