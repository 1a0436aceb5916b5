"""ProteinMPNN on the bundled backbone, guided: a whole run of `fastguide.sample`, where its weights are installed."""

from __future__ import annotations

import time
from importlib.resources import files
from typing import Any

import torch

import fastguide as fg
from bench.gpu.measure import Device
from fastguide.models import ProteinMPNN
from fastguide.protein import Design, read_structure
from fastguide.values.compiled import PositionWeightMatrix

STEPS = 19


def run(device: Device, n: int) -> dict[str, Any]:
    """Return what a run of ``n`` particles took."""
    row: dict[str, Any] = {"op": "protein", "job": f"ProteinMPNN, SMC, {STEPS} steps", "n": n, "failed": {}}
    try:
        model = ProteinMPNN(
            Design.create(read_structure(str(files("fastguide") / "data" / "1UBI.pdb"))), device=device.device
        )
        reward = PositionWeightMatrix(
            torch.randn(model.length, model.vocab, generator=torch.Generator().manual_seed(0))
        )
        process = fg.MaskedProcess(model.length, model.vocab, steps=STEPS)
        device.synchronize()
        begin = time.perf_counter()
        result = fg.sample(
            process, model, reward, fg.SMC(alpha=1.0), particles=n, seed=0, progress=False, device=device.device
        )
        device.synchronize()
        seconds = time.perf_counter() - begin
    except Exception as error:
        row["failed"]["fastguide"] = f"{type(error).__name__}: {str(error)[:300]}"
        return row
    row["seconds"] = {"fastguide": {"median": seconds, "low": seconds, "high": seconds, "samples": 1}}
    row["samples_per_second"] = n / seconds
    row["denoiser_rows"] = int(result.denoiser_rows)
    if device.is_gpu:
        row["peak_bytes"] = torch.cuda.max_memory_allocated()
    return row
