"""Whole runs of `fastguide.sample` with a small denoiser, steps launched one by one and as replays of a CUDA graph, in turn."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

import fastguide as fg
from bench.gpu.measure import Device
from fastguide.values.compiled import PositionWeightMatrix, Quadratic

ROUNDS = 5


def all_loops(device: Device, tiny: bool) -> Iterator[Callable[[], dict[str, Any]]]:
    """Yield the runs, to be begun when it is their turn."""
    steps = 8 if tiny else 64
    for n in (16,) if tiny else (1024, 16_384):
        yield lambda n=n: _masked(device, n, steps)
    for n in (4,) if tiny else (64, 1024):
        yield lambda n=n: _gaussian(device, n, steps)


def _masked(device: Device, n: int, steps: int) -> dict[str, Any]:
    length, vocab, where = 64, 22, device.device
    embed = torch.randn(vocab + 1, 64, device=where)
    hidden, head = (torch.randn(64, m, device=where) / 8 for m in (64, vocab))

    def denoise(x: Tensor, t: Tensor) -> Tensor:
        mean = embed[x].mean(1, keepdim=True)
        return torch.nn.functional.silu((embed[x] + mean) @ hidden) @ head

    reward = PositionWeightMatrix(torch.randn(length, vocab, generator=torch.Generator().manual_seed(0)))
    process = fg.MaskedProcess(length, vocab, steps=steps)
    return _run(device, f"masked, L {length}, V {vocab}, {steps} steps", n, process, denoise, reward)


def _gaussian(device: Device, n: int, steps: int) -> dict[str, Any]:
    shape = (3, 64, 64)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1), torch.nn.SiLU(), torch.nn.Conv2d(16, 3, 3, padding=1)
    ).to(device.device)
    network.requires_grad_(False)
    size = shape[0] * shape[1] * shape[2]
    reward = Quadratic(-torch.ones(size) / size, torch.zeros(size))
    process = fg.GaussianProcess(shape, steps=steps, schedule="cosine")
    return _run(device, f"gaussian, 3x64x64, {steps} steps", n, process, lambda x, t: network(x), reward)


def _run(device: Device, job: str, n: int, process: Any, denoiser: Any, reward: Any) -> dict[str, Any]:
    row: dict[str, Any] = {"op": "run", "job": f"SMC, {job}", "n": n, "failed": {}, "seconds": {}}
    forms = {"fastguide": False, "fastguide, cuda_graph": True} if device.is_gpu else {"fastguide": False}
    samples: dict[str, list[float]] = {name: [] for name in forms}
    for round_ in range(ROUNDS + 1):
        for name, cuda_graph in forms.items():
            if name in row["failed"]:
                continue
            try:
                device.synchronize()
                begin = time.perf_counter()
                fg.sample(
                    process, denoiser, reward, fg.SMC(alpha=1.0), particles=n, seed=round_, progress=False,
                    device=device.device, cuda_graph=cuda_graph,
                )  # fmt: skip
                device.synchronize()
            except Exception as error:
                row["failed"][name] = f"{type(error).__name__}: {str(error)[:300]}"
                continue
            if round_:  # the first one compiles
                samples[name].append(time.perf_counter() - begin)
    for name, found in samples.items():
        if found:
            row["seconds"][name] = {
                "median": statistics.median(found), "low": min(found), "high": max(found), "samples": len(found),
            }  # fmt: skip
    return row
