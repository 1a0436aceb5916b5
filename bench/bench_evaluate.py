"""Compiled values against torch, and a function written in Python against its other forms.

``fastguide bench kernels --ops evaluate`` has the Potts model and the MLP. Every competitor is the fastest of several ways to
write it; large batches are cut into parts that stay in the cache where that helps. Run with OMP_PROC_BIND=true.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import fastguide as fg
from fastguide.bench.timing import alternate, machine
from fastguide.values import compiled

ROWS, LENGTH, VOCAB = 2**17, 76, 20
RESULT = Path(__file__).parent / "results" / "evaluate.json"


def in_parts(f: Callable[[Tensor], Tensor], rows: int) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.cat([f(part) for part in x.split(rows)])


@fg.value
def changes(x: Any) -> Any:
    count = 0
    for i in range(1, len(x)):
        count += x[i] != x[i - 1]
    return count / len(x)


def float_cases() -> dict[str, tuple[Any, Tensor, dict[str, Callable[[Tensor], Tensor]]]]:
    many, x = torch.randn(2**20, 64), torch.randn(ROWS, 64)
    w, c, a = torch.randn(64), torch.randn(64), torch.randn(64, 64)

    def form(x: Tensor) -> Tensor:
        y = x - c
        return (y @ a * y).sum(1) / 2

    def squares(x: Tensor) -> Tensor:
        y = x - c
        return y.mul_(y) @ w / 2

    return {
        "linear, 2^20 x 64": (compiled.Linear(w, 1.0), many, {"torch mv": lambda x: torch.mv(x, w) + 1}),
        "diagonal quadratic, 2^20 x 64": (
            compiled.Quadratic(w, c),
            many,
            {"torch": squares, "torch, parts of 4,096": in_parts(squares, 4096)},
        ),
        "quadratic, 2^17 x 64": (
            compiled.Quadratic(a, c),
            x,
            {"torch": form, "torch, parts of 4,096": in_parts(form, 4096)},
        ),
    }


def token_cases() -> dict[str, tuple[Any, Tensor, dict[str, Callable[[Tensor], Tensor]]]]:
    x = torch.randint(0, VOCAB, (ROWS, LENGTH))
    scores = torch.randn(LENGTH, VOCAB)
    offsets = torch.arange(LENGTH) * VOCAB
    column = scores.reshape(-1, 1)

    def bag(x: Tensor) -> Tensor:
        return F.embedding_bag(x + offsets, column, mode="sum")[:, 0]

    def look_up(x: Tensor) -> Tensor:
        return column[:, 0][x + offsets].sum(1)

    def motif(x: Tensor) -> Tensor:
        return ((x[:, :-2] == 3) & (x[:, 1:-1] == 5) & (x[:, 2:] == 3)).sum(1)

    def python(x: Tensor) -> Tensor:
        return (x[:, 1:] != x[:, :-1]).sum(1) / LENGTH

    return {
        "position weights, 2^17 x 76": (
            compiled.PositionWeightMatrix(scores),
            x,
            {
                "torch embedding_bag": bag,
                "torch index": look_up,
                "torch index, parts of 1,024": in_parts(look_up, 1024),
            },
        ),
        "motif of 3, 2^17 x 76": (
            compiled.MotifCount([3, 5, 3], VOCAB),
            x,
            {"torch": motif, "torch, parts of 1,024": in_parts(motif, 1024)},
        ),
        "changes, written in Python, 2^17 x 76": (
            changes,
            x,
            {"torch": python, "torch, parts of 1,024": in_parts(python, 1024)},
        ),
    }


def timed(title: str, competitors: Mapping[str, Callable[[], Any]], rounds: int = 15) -> dict[str, Any]:
    seconds = alternate(competitors, rounds=rounds).medians
    print(title)
    for name, t in seconds.items():
        print(f"  {name:<44} {t * 1e3:10.4f} ms   {t / seconds['fastguide']:7.2f} x")
    return {"case": title, "seconds": seconds}


def measure(title: str, case: Any, rows: list[dict[str, Any]], rounds: int) -> None:
    value, x, peers = case
    competitors: dict[str, Callable[[], Any]] = {"fastguide": lambda: value(x)}
    for name, peer in peers.items():
        torch.testing.assert_close(peer(x[:999]).float(), value(x[:999]), rtol=1e-3, atol=1e-2)
        competitors[name] = lambda peer=peer: peer(x)
    competitors["reading the states (sum)"] = lambda: x.sum()
    rows.append(timed(title, competitors, rounds))


def main() -> None:
    rows: list[dict[str, Any]] = []
    with torch.no_grad():
        for title, case in {**float_cases(), **token_cases()}.items():
            measure(title, case, rows, rounds=5)
        one_by_one = fg.rewards.each(changes.python)
        states = torch.randint(0, VOCAB, (512, LENGTH))
        forms = {"fastguide": lambda: changes(states), "a row at a time": lambda: one_by_one(states.numpy())}
        rows.append(timed("changes, written in Python, 512 x 76", forms))

        zeros = torch.zeros(ROWS)
        for title, (compiled_value, states) in {
            "weigh and select with a linear value, 2^17 x 64": (
                compiled.Linear(torch.randn(64)),
                torch.randn(ROWS, 64),
            ),
            "weigh and select with position weights, 2^17 x 76": (
                compiled.PositionWeightMatrix(torch.randn(LENGTH, VOCAB)),
                torch.randint(0, VOCAB, (ROWS, LENGTH)),
            ),
        }.items():
            calls = {
                "fastguide": lambda v=compiled_value, s=states: fg.ops.reweight_select(
                    zeros, v, zeros, 0.1, 0.1, states=s
                ),
                "two calls": lambda v=compiled_value, s=states: fg.ops.reweight_select(zeros, v(s), zeros, 0.1, 0.1),
            }
            rows.append(timed(title, calls))
    RESULT.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    print(f"written to {RESULT}")


if __name__ == "__main__":
    main()
