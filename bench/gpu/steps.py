"""The whole guided step: propose, predict, value, weigh, select, move; eagerly and from a graph.

Selection happens at every step and is systematic; the denoiser is one hidden layer, the same for all competitors. The eager
forms are what a script on a GPU does: draws everywhere by Gumbel noise, which waits for nothing, and none of the operations
here. A captured step repeats one step of the counter, which costs what any other does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from bench.gpu.jobs import systematic
from bench.gpu.measure import Device, Job
from fastguide import cuda, ops
from fastguide.values.compiled import PositionWeightMatrix, Quadratic

BETA = 0.5


def all_steps(device: Device, tiny: bool) -> Iterator[Callable[[], Job]]:
    """Yield the workloads, to be built when it is their turn."""
    masked = [(64, 16, 22)] if tiny else [(1024, 64, 22), (16_384, 64, 22), (64, 128, 32_000), (512, 128, 32_000)]
    for n, length, vocab in masked:
        yield lambda n=n, length=length, vocab=vocab: masked_step(device, n, length, vocab)
    for n, size in [(8, 8)] if tiny else [(64, 64), (1024, 64)]:
        yield lambda n=n, size=size: gaussian_step(device, n, (3, size, size))


def masked_step(device: Device, n: int, length: int, vocab: int) -> Job:
    where, reveal = device.device, 1 / 16
    kind = torch.bfloat16 if vocab > 1000 else torch.float32
    embed = torch.randn(vocab + 1, 64, device=where, dtype=kind)
    hidden, head = (torch.randn(64, m, device=where, dtype=kind) / 8 for m in (64, vocab))
    scores = torch.randn(length, vocab)
    value, on_device = PositionWeightMatrix(scores), scores.to(where)
    tokens = torch.randint(0, vocab, (n, length), device=where)
    tokens[torch.rand(n, length, device=where) < 0.5] = vocab
    log_weights, before = torch.zeros(n, device=where), torch.zeros(n, device=where)
    offset = torch.rand((), device=where, dtype=torch.float64)

    def denoise(x: Tensor) -> Tensor:
        mean = embed[x].mean(1, keepdim=True)
        return torch.nn.functional.silu((embed[x] + mean) @ hidden) @ head

    logits = denoise(tokens)

    def ours(backend: str) -> tuple[Tensor, ...]:
        children = ops.masked_step(tokens, logits, reveal_probability=reveal, seed=1, backend=backend)[:, 0]
        clean = ops.masked_mode(children, denoise(children), backend=backend)
        out = ops.reweight_select(
            log_weights, value, before, BETA, BETA, states=clean, ess_threshold=1.0, seed=1, backend=backend
        )
        return ops.move(children, out.ancestors, inplace=True, backend=backend), out.values

    def eager() -> tuple[Tensor, ...]:
        chosen = (tokens == vocab) & (torch.rand(tokens.shape, device=where) < reveal)
        noise = -torch.empty(logits.shape, device=where, dtype=torch.float32).exponential_().log_()
        children = torch.where(chosen, (logits + noise).argmax(-1), tokens)
        clean = torch.where(children == vocab, denoise(children).argmax(-1), children)
        values = on_device.expand(n, -1, -1).gather(2, clean[..., None]).sum((1, 2))
        ancestors = systematic(log_weights + BETA * (values - before), offset)
        return children[ancestors], values[ancestors]

    def fused() -> tuple[Tensor, ...]:
        children = ops.masked_step(tokens, logits, reveal_probability=reveal, seed=1)[:, 0]
        values = ops.evaluate(value, ops.masked_mode(children, denoise(children)))
        out = _reweight_and_move(log_weights, values, before, children)
        return children, out

    found = {f"fastguide {backend}": (lambda backend=backend: ours(backend)) for backend in device.backends}
    if device.is_gpu and cuda.available():
        found["fastguide cuda, fused"] = fused
    same = tuple(found)
    found |= {"torch eager": eager, "the denoiser alone": lambda: denoise(tokens)}
    size = {"length": length, "vocab": vocab}
    return Job("guided step", f"masked, L {length}, V {vocab}", n, found, 0, same, (*same, "torch eager"), size)


def _reweight_and_move(log_weights: Tensor, values: Tensor, before: Tensor, state: Tensor) -> Tensor:
    """Weigh, select and move in the launches of one operation; return the values, moved."""
    from fastguide.cuda.reweight_select import reweight_select
    from fastguide.triton._launch import new_status

    one = log_weights.new_empty(1, dtype=torch.float64)
    outputs = (
        torch.empty_like(log_weights), torch.empty_like(values), values.new_empty(0),
        values.new_empty(len(values), dtype=torch.int32), values.new_empty(1, dtype=torch.bool), one, one.clone(),
    )  # fmt: skip
    inputs = [log_weights, values, before, None, None]
    status = new_status(values.device)
    reweight_select(inputs, None, BETA, None, BETA, 0, 1.0, None, 1, 0, outputs, status, [state])
    return outputs[1]


def gaussian_step(device: Device, n: int, shape: tuple[int, ...]) -> Job:
    where, size = device.device, shape[0] * shape[1] * shape[2]
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(16, 3, 3, padding=1)
    ).to(where)
    network.requires_grad_(False)
    x = torch.randn(n, *shape, device=where)
    log_weights, before = torch.zeros(n, device=where), torch.zeros(n, device=where)
    value = Quadratic(-torch.ones(size), torch.zeros(size))
    numbers = {"x_coefficient": 0.9, "prediction_coefficient": -0.3, "sigma": 0.5}
    offset = torch.rand((), device=where, dtype=torch.float64)
    prediction = network(x)

    def ours(backend: str) -> tuple[Tensor, ...]:
        children = ops.gaussian_step(x, prediction, **numbers, seed=1, backend=backend)[:, 0]
        clean = children - 0.5 * network(children)
        out = ops.reweight_select(
            log_weights, value, before, BETA, BETA, states=clean, ess_threshold=1.0, seed=1, backend=backend
        )
        return ops.move(children, out.ancestors, inplace=True, backend=backend), out.values

    def eager() -> tuple[Tensor, ...]:
        children = x * 0.9 + prediction * -0.3 + 0.5 * torch.randn_like(x)
        clean = children - 0.5 * network(children)
        values = -0.5 * clean.square().flatten(1).sum(1)
        ancestors = systematic(log_weights + BETA * (values - before), offset)
        return children[ancestors], values[ancestors]

    found = {f"fastguide {backend}": (lambda backend=backend: ours(backend)) for backend in device.backends}
    same: tuple[Any, ...] = tuple(found)
    found |= {"torch eager": eager, "the denoiser alone": lambda: network(x)}
    name = "x".join(map(str, shape))
    return Job("guided step", f"gaussian, {name}", n, found, 0, (), (*same, "torch eager"), {"shape": name})
