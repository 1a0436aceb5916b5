"""The operations, each against torch eager, ``torch.compile`` and what torch and CuPy have of CUB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from bench.gpu.measure import Device, Job
from fastguide import ops
from fastguide.values.compiled import MLP, Linear, Potts

SIZES = (2**10, 2**14, 2**17, 2**20, 2**22, 2**24, 2**26)
TINY = (2**10, 2**13)
COMPILED = (2**20, 2**24)
"""Sizes at which the competitor is compiled as well: a compilation takes seconds."""
Competitors = dict[str, Callable[[], Any]]


def ours(device: Device, call: Callable[[str], Any]) -> Competitors:
    """Return a call of an operation for each of the backends."""
    return {f"fastguide {backend}": (lambda backend=backend: call(backend)) for backend in device.backends}


def all_jobs(device: Device, sizes: tuple[int, ...]) -> Iterator[Callable[[], Job]]:
    """Yield the jobs, to be built when it is their turn."""
    for n in sizes:
        for order in ("sorted", "slots"):
            yield lambda n=n, order=order: select(device, n, order)
        yield lambda n=n: reweight_select(device, n)
        if n <= 2**22:
            yield lambda n=n: evaluate_and_select(device, 1, n, 8)
        if n <= 2**17:
            yield lambda n=n: evaluate_and_select(device, n, 32, 8)
        yield lambda n=n: move(device, n, 76, torch.uint8, False)
        yield lambda n=n: masked_step(device, n, 64, 22)
        if n * 3072 * 4 * 6 <= 48 * 2**30:
            yield lambda n=n: gaussian_step(device, n, (3, 32, 32))
        if n * 1024 * 2 <= 24 * 2**30:
            yield lambda n=n: move(device, n, 256, torch.float32, False)
            yield lambda n=n: move(device, n, 256, torch.float32, True)
        if n <= 2**24:
            yield lambda n=n: unique(device, n)
        if n <= 2**22:
            yield lambda n=n: evaluate(device, n, "linear")
            yield lambda n=n: evaluate(device, n, "mlp")
        if n <= 2**17:
            yield lambda n=n: evaluate(device, n, "potts")
            yield lambda n=n: select_many(device, n, 8, 1)
            yield lambda n=n: select_many(device, n, 64, 64)


def systematic(log_weights: Tensor, offset: Tensor) -> Tensor:
    """The composition of torch operations, in float64 where the sum needs it."""
    n = len(log_weights)
    cumulative = torch.softmax(log_weights, 0).cumsum(0, dtype=torch.float64)
    points = (torch.arange(n, device=log_weights.device) + offset) / n
    return torch.searchsorted(cumulative, points).clamp_(max=n - 1)


def select(device: Device, n: int, order: str) -> Job:
    x = torch.randn(n, device=device.device)
    offset, whole = (
        torch.rand((), device=device.device, dtype=torch.float64),
        torch.randint(1, 99, (n,), device=device.device),
    )
    found = ours(device, lambda backend: ops.select(x, order=order, backend=backend))
    if order == "sorted":
        found["torch eager"] = lambda: systematic(x, offset)
        if n in COMPILED and device.is_gpu:
            found["torch.compile"] = _compiled(lambda: systematic(x, offset))
        if n <= 2**24:
            weights = torch.softmax(x, 0)
            found["torch.multinomial"] = lambda: torch.multinomial(weights, n, replacement=True)
        found["CUB int64 inclusive sum (torch.cumsum)"] = lambda: whole.cumsum(0)
        found |= _cupy_sum(whole)
    graph = [name for name in found if name != "torch.multinomial" and "CuPy" not in name]
    return Job("select", order, n, found, 8 * n, tuple(list(found)[: len(device.backends)]), tuple(graph))


def select_many(device: Device, groups: int, items: int, draws: int) -> Job:
    x = torch.randn(groups, items, device=device.device)
    found = ours(device, lambda backend: ops.select(x, draws, backend=backend))
    same = tuple(found)
    weights = torch.softmax(x, 1)
    found["torch.multinomial, batched"] = lambda: torch.multinomial(weights, draws, replacement=True)
    found["torch Gumbel-argmax"] = lambda: (x - torch.empty_like(x).exponential_().log_()).argmax(1)
    moved = groups * (4 * items + 4 * draws + 16)
    size = {"items": items, "draws": draws}
    return Job("select", f"groups of {items}, {draws} draws", groups, found, moved, same, same, size)


def reweight_select(device: Device, n: int) -> Job:
    x, values, previous = (torch.randn(n, device=device.device) for _ in range(3))
    offset = torch.rand((), device=device.device, dtype=torch.float64)

    def torch_way() -> Any:
        updated = x + (values * 2 - previous)
        ancestors = systematic(updated, offset)
        return torch.zeros_like(x), values[ancestors], ancestors

    found = ours(
        device,
        lambda backend: _tensors(
            ops.reweight_select(x, values, previous, 2.0, 1.0, ess_threshold=1.0, backend=backend)
        ),
    )
    same = tuple(found)
    found["torch eager"] = torch_way
    if n in COMPILED and device.is_gpu:
        found["torch.compile"] = _compiled(torch_way)
    return Job("reweight_select", "systematic", n, found, 24 * n, same, (*same, "torch eager"))


def evaluate_and_select(device: Device, groups: int, n: int, columns: int) -> Job:
    """One call that is given the states against two, on each backend: only Triton's evaluates in the kernels that weigh."""
    x, previous = (torch.randn(groups, n, device=device.device) for _ in range(2))
    states = torch.randn(groups * n, columns, device=device.device)
    value = Linear(torch.randn(columns, generator=torch.Generator().manual_seed(0)).to(device.device), 0.5)

    def two(backend: str) -> tuple[Tensor, ...]:
        values = ops.evaluate(value, states, backend=backend).view(x.shape)
        return _tensors(ops.reweight_select(x, values, previous, 2.0, 1.0, ess_threshold=1.0, backend=backend))

    def one(backend: str) -> tuple[Tensor, ...]:
        given = {"states": states, "ess_threshold": 1.0, "backend": backend}
        return _tensors(ops.reweight_select(x, value, previous, 2.0, 1.0, **given))

    found = ours(device, one) | {f"{name}, two calls": call for name, call in ours(device, two).items()}
    moved = groups * n * (4 * columns + 24)
    job = f"linear value of {columns} numbers, {'groups of 32' if groups > 1 else 'one group'}"
    return Job("reweight_select", job, max(groups, n), found, moved, tuple(found), tuple(found), {"items": n})


def move(device: Device, n: int, width: int, dtype: torch.dtype, in_place: bool) -> Job:
    state = torch.randint(0, 20, (n, width), device=device.device, dtype=torch.int32).to(dtype)
    log_weights = torch.randn(n, device=device.device)
    ancestors = ops.select(log_weights, order="slots").ancestors
    dead = int((ancestors != torch.arange(n, device=device.device)).sum())
    wide, row = ancestors.long(), width * state.element_size()
    if in_place:
        # The rows that keep their places make every call after the first the same work.
        found = ours(device, lambda backend: (ops.move(state, ancestors, inplace=True, backend=backend),))
        found["torch eager"] = lambda: state.copy_(state.index_select(0, wide))
        moved = 4 * n + 2 * dead * row
    else:
        target = torch.empty_like(state)
        found = ours(device, lambda backend: (ops.move(state, ancestors, out=target, backend=backend),))
        found["torch eager"] = lambda: torch.index_select(state, 0, wide, out=target)
        moved = 4 * n + 2 * n * row
    name = f"{'in place' if in_place else 'out of place'}, {row} bytes"
    return Job("move", name, n, found, moved, tuple(list(found)[: len(device.backends)]), tuple(found), {"dead": dead})


def unique(device: Device, n: int) -> Job:
    kinds = torch.randint(0, 20, (max(1, n // 4), 76), device=device.device, dtype=torch.int32).to(torch.uint8)
    rows = kinds[torch.randint(0, len(kinds), (n,), device=device.device)]
    found = ours(device, lambda backend: tuple(ops.unique(rows, backend=backend)))
    same = tuple(found)
    if n <= 2**20:
        found["torch.unique"] = lambda: torch.unique(rows, dim=0, return_inverse=True, return_counts=True)
    return Job("unique", "76 bytes, a quarter differ", n, found, n * (76 + 8) + 16 * (n // 4), same)


def masked_step(device: Device, n: int, length: int, vocab: int) -> Job:
    most = 2**22  # 2^22 x 64 x 22 logits are 24 GB
    n = min(n, most)
    tokens = torch.randint(0, vocab, (n, length), device=device.device)
    tokens[torch.rand(n, length, device=device.device) < 0.5] = vocab
    logits = torch.randn(n, length, vocab, device=device.device)
    reveal = 1 / 16
    found = ours(device, lambda backend: (ops.masked_step(tokens, logits, reveal_probability=reveal, backend=backend),))
    found = {name: call for name, call in found.items() if "cuda" not in name}

    def torch_way() -> Tensor:
        chosen = (tokens == vocab) & (torch.rand(tokens.shape, device=tokens.device) < reveal)
        at = chosen.flatten().nonzero().flatten()
        cumulative = torch.softmax(logits.view(-1, vocab)[at], -1).cumsum(-1)
        drawn = (cumulative < torch.rand(len(at), 1, device=tokens.device)).sum(-1).clamp_(max=vocab - 1)
        return tokens.flatten().index_copy(0, at, drawn).view_as(tokens)

    found["torch eager, sparse"] = torch_way
    revealed = int((tokens == vocab).sum()) * reveal
    moved = int(n * length * 16 + revealed * vocab * 4)
    same = tuple(name for name in found if name.startswith("fastguide"))
    return Job("masked_step", f"L {length}, V {vocab}", n, found, moved, same, same, {"length": length, "vocab": vocab})


def gaussian_step(device: Device, n: int, shape: tuple[int, ...]) -> Job:
    x, prediction = (torch.randn(n, *shape, device=device.device) for _ in range(2))
    numbers = {"x_coefficient": 0.9, "prediction_coefficient": -0.3, "sigma": 0.5}
    ancestors = torch.randint(0, n, (n,), device=device.device, dtype=torch.int32).sort().values
    wide = ancestors.long()
    found = ours(
        device, lambda backend: (ops.gaussian_step(x, prediction, ancestors=ancestors, **numbers, backend=backend),)
    )
    found = {name: call for name, call in found.items() if "cuda" not in name}

    def torch_way() -> Tensor:
        return x[wide] * 0.9 + prediction[wide] * -0.3 + 0.5 * torch.randn_like(x)

    found["torch eager"] = torch_way
    if device.is_gpu and n in (2**14, 2**17):
        found["torch.compile"] = _compiled(torch_way)
    moved = 12 * x.numel() + 4 * n
    same = tuple(name for name in found if name.startswith("fastguide"))
    return Job("gaussian_step", "x".join(map(str, shape)), n, found, moved, same, (*same, "torch eager"))


def evaluate(device: Device, n: int, kind: str) -> Job:
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(device.device)

    if kind == "potts":
        length, vocab = 76, 20
        fields, couplings = normal(length, vocab), normal(length, length, vocab, vocab) * 0.1
        states = torch.randint(0, vocab, (n, length), device=device.device)
        value, moved = Potts(fields, couplings), 0
        first, second = torch.triu_indices(length, length, 1, device=device.device)

        def torch_way() -> Tensor:
            pairs = couplings[first, second, states[:, first], states[:, second]].sum(1)
            return fields.expand(n, -1, -1).gather(2, states[..., None])[..., 0].sum(1) + pairs

    elif kind == "mlp":
        states = torch.randn(n, 64, device=device.device)
        layers = [normal(128, 64) * 0.1, normal(128), normal(128, 128) * 0.1, normal(128), normal(1, 128), normal(1)]
        value, moved = MLP(layers[::2], layers[1::2], "silu"), 0

        def torch_way() -> Tensor:
            y = torch.nn.functional.silu(torch.addmm(layers[1], states, layers[0].T))
            y = torch.nn.functional.silu(torch.addmm(layers[3], y, layers[2].T))
            return torch.addmm(layers[5], y, layers[4].T)[:, 0]

    else:
        states, weight = torch.randn(n, 64, device=device.device), normal(64)
        value, moved = Linear(weight, 0.5), n * (64 * 4 + 4)

        def torch_way() -> Tensor:
            return states @ weight + 0.5

    found = ours(device, lambda backend: (ops.evaluate(value, states, backend=backend),))
    found = {name: call for name, call in found.items() if "cuda" not in name}
    same = tuple(found)
    if kind != "potts" or n <= 2**14:
        found["torch eager"] = torch_way
    return Job("evaluate", kind, n, found, moved, same, same)


def _tensors(results: Any) -> tuple[Tensor, ...]:
    return tuple(x for x in results if x is not None)


def _compiled(call: Callable[[], Any]) -> Callable[[], Any]:
    return torch.compile(call, dynamic=False)


def _cupy_sum(whole: Tensor) -> Competitors:
    try:
        import cupy
    except ImportError:
        return {}
    array = cupy.from_dlpack(whole)
    total = cupy.empty_like(array)
    return {"CUB int64 inclusive sum (CuPy)": lambda: cupy.cumsum(array, out=total)}
