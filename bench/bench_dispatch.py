"""What a call of an operation costs before its kernel does anything, by each of the ways there are into it.

``select`` and ``masked_step`` of 16 particles, so small that the way in is most of it. Writes
``bench/results/dispatch.{json,md}``. Run with OMP_PROC_BIND=true and OMP_NUM_THREADS=1, alone on the machine. With a GPU the
launches of Triton and of the CUDA module are timed too, without waiting for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastguide import cuda, ops
from fastguide.bench.timing import ROUNDS, Times, alternate, machine
from fastguide.deferred import Deferred, deferred
from fastguide.ops import _native

N, LENGTH, VOCAB = 16, 12, 20
RESULTS = Path(__file__).parent / "results" / "dispatch.json"
EAGER = "eager, as it is"
Routes = dict[str, Callable[[], Any]]
NOTES = {
    EAGER: "what a user calls: checks, allocation, kernel",
    "through the operator": "the same checks, then the operator registered with torch, as a compiled graph has it",
    "through custom_op": "the same checks, then an operator made by the decorator torch.library.custom_op",
    "compiled": "torch.compile(fullgraph=True) of the call alone: guards, generated code, the operator",
    "launcher": "without checks: allocation, kernel",
    "operator": "without checks: the operator registered with torch",
    "custom_op": "without checks: the operator made by the decorator",
    "kernel": "into memory that is there already",
    "x.add(1)": "torch's own, for comparison",
}


def instead(module: Any, operator: Callable[..., Any], call: Callable[[], Any]) -> Callable[[], Any]:
    """Return a call in which the public function takes another operator, as it does while a graph is traced."""
    of_torch, registered = torch.compiler.is_compiling, module._op

    def run() -> Any:
        torch.compiler.is_compiling, module._op = _yes, operator
        try:
            return call()
        finally:
            torch.compiler.is_compiling, module._op = of_torch, registered

    return run


def _yes() -> bool:
    return True


@torch.library.custom_op("fastguide_bench::select", mutates_args=())
def decorated_select(
    log_weights: Tensor,
    k: int,
    rule: str,
    order: str,
    seeds: Tensor | None,
    seed: int,
    step: int,
    keep: bool,
    backend: str | None,
) -> tuple[Tensor, Tensor, Tensor]:
    selected = import_module("fastguide.ops.select")._launch(
        log_weights, k, rule, order, seeds, seed, step, keep, backend
    )
    return tuple(selected)  # type: ignore[return-value]


@torch.library.custom_op("fastguide_bench::masked_step", mutates_args=())
def decorated_masked_step(
    tokens: Tensor,
    logits: Tensor,
    reveal_probability: float,
    counts: Tensor | None,
    count: int,
    confidence: bool,
    remask_probability: float,
    frozen: Tensor | None,
    inverse_temperature: float,
    top_k: int,
    top_p: float,
    bias: Tensor | None,
    shift: Tensor | None,
    ancestors: Tensor | None,
    branch: int,
    seeds: Tensor | None,
    seed: int,
    step: int,
    slots: Tensor | None,
    lengths: Tensor | None,
    backend: str | None,
) -> Tensor:
    children: Tensor = import_module("fastguide.ops.masked_step")._launch(
        tokens, logits, reveal_probability, counts, count, confidence, remask_probability, frozen, inverse_temperature,
        top_k, top_p, bias, shift, ancestors, branch, seeds, seed, step, slots, lengths, backend,
    )  # fmt: skip
    return children


def routes(
    name: str, call: Callable[..., Any], inputs: tuple[Tensor, ...], settings: tuple[Any, ...], decorated: Any
) -> Routes:
    """Return the ways into an operation.

    Args:
        name: of the operation.
        call: the public function on the inputs.
        settings: the other arguments of its launcher and of its operator, for the same result.
        decorated: its operator as ``custom_op`` makes it.
    """
    module = import_module(f"fastguide.ops.{name}")
    public: Callable[[], Any] = lambda: call(*inputs)  # noqa: E731
    compiled = torch.compile(call, fullgraph=True)
    return {
        EAGER: public,
        "through the operator": instead(module, module._op, public),
        "through custom_op": instead(module, decorated, public),
        "compiled": lambda: compiled(*inputs),
        "launcher": lambda: module._launch(*inputs, *settings),
        "operator": lambda: module._op(*inputs, *settings),
        "custom_op": lambda: decorated(*inputs, *settings),
    }


def of_select() -> Routes:
    x = torch.randn(N)
    out = ops.select(x)
    found = routes("select", ops.select, (x,), (N, "systematic", "sorted", None, 0, 0, False, None), decorated_select)
    found["kernel"] = lambda: _native.select(x, N, 0, False, None, 0, 0, *out)
    return found


def of_masked_step() -> Routes:
    tokens, logits = torch.full((N, LENGTH), VOCAB), torch.randn(N, LENGTH, VOCAB)
    tokens[:, ::2] = 3
    chance = (0.25, None, -1, False, 0.0, None)
    settings = (*chance, 1.0, 0, 1.0, None, None, None, 1, None, 0, 0, None, None, None)
    out = ops.masked_step(tokens, logits, reveal_probability=0.25)

    def call(tokens: Tensor, logits: Tensor) -> Tensor:
        return ops.masked_step(tokens, logits, reveal_probability=0.25)

    found = routes("masked_step", call, (tokens, logits), settings, decorated_masked_step)
    kernel = (*chance, 1.0, 0, 1.0, None, None, None, None, 0, 0, None, None)
    found["kernel"] = lambda: _native.masked_step(tokens, logits, out, *kernel)
    return found


def on_a_gpu() -> dict[str, Routes]:
    """Return calls that launch on the GPU and do not wait, as inside a run."""
    x = torch.randn(N, device="cuda")
    tokens = torch.full((N, LENGTH), VOCAB, device="cuda")
    logits = torch.randn(N, LENGTH, VOCAB, device="cuda")
    found: dict[str, Routes] = {"select, launched": {}, "masked_step, launched": {}}
    for backend in ("triton", "cuda")[: 1 + cuda.available()]:
        found["select, launched"][backend] = lambda backend=backend: ops.select(x, backend=backend)
    found["masked_step, launched"]["triton"] = lambda: ops.masked_step(
        tokens, logits, reveal_probability=0.25, backend="triton"
    )
    for of_operation in found.values():
        of_operation["x.add(1)"] = lambda: x.add(1.0)
    return found


def same_bits(found: Mapping[str, Callable[[], Any]]) -> None:
    """Assert that all routes but the kernel alone, which returns a status, lead to one result."""
    results = {name: route() for name, route in found.items() if name not in ("kernel", "x.add(1)")}
    tensors = {name: (x,) if isinstance(x, Tensor) else tuple(x) for name, x in results.items()}
    first = next(iter(tensors.values()))
    for name, result in tensors.items():
        assert all(torch.equal(a, b) for a, b in zip(first, result, strict=True)), name


def measure(operation: str, found: Routes, rounds: int) -> list[dict[str, Any]]:
    """Time routes in turn, and return a row for each."""
    same_bits(found)
    times: Times = alternate(found, rounds=rounds, target=0.01)
    first = next(iter(found))
    return [
        {
            "operation": operation,
            "route": name,
            "seconds": times.median(name),
            "spread": times.spread(name),
            "ratio": times.ratio(name, first),
        }
        for name in found
    ]


def table(rows: list[dict[str, Any]], where: Mapping[str, Any]) -> str:
    """Return the page of the results."""
    lines = [
        "# What a call costs by each route",
        "",
        f"{where['cpu']}, {where['threads']} thread, torch {where['torch']}; {N} particles"
        f" (`masked_step`: {LENGTH} positions, {VOCAB} tokens). `python -m bench.bench_dispatch`.",
        "",
        "Routes take turns in one process; ratios are of medians over the rounds, in brackets the 10 % and 90 % quantiles "
        "of single rounds.",
        "",
        "| operation | route | µs a call | against the first | |",
        "|---|---|--:|--:|---|",
    ]
    for row in rows:
        median, low, high = row["ratio"]
        lines.append(
            f"| {row['operation']} | {row['route']} | {row['seconds'] * 1e6:.2f} | {median:.2f} ({low:.2f}–{high:.2f}) | "
            f"{NOTES.get(row['route'], '')} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    small = torch.randn(N)
    rows: list[dict[str, Any]] = []
    for operation, make in (("select", of_select), ("masked_step", of_masked_step)):
        rows += measure(operation, {**make(), "x.add(1)": lambda: small.add(1.0)}, 3 * ROUNDS)
    if torch.cuda.is_available():
        with deferred(Deferred()):
            for operation, found in on_a_gpu().items():
                rows += measure(operation, found, ROUNDS)
    where = machine()
    RESULTS.write_text(json.dumps({"machine": where, "particles": N, "rows": rows}, indent=1) + "\n")
    RESULTS.with_suffix(".md").write_text(table(rows, where))
    print(table(rows, where))


if __name__ == "__main__":
    main()
