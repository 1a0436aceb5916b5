"""Side-by-side timing: competitors alternate in one process, and ratios of medians are what counts."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def alternate(
    competitors: Mapping[str, Callable[[], Any]], *, rounds: int = 15, target: float = 0.02
) -> dict[str, float]:
    """Return the median seconds a call of each competitor.

    Args:
        competitors: what to call, by name. Each is called twice first, so that compilation and page faults are paid.
        rounds: rounds in which every competitor has one turn, in alternating direction.
        target: seconds a turn lasts at least; short calls are repeated to fill it.
    """
    repeats = {}
    for name, call in competitors.items():
        call()
        begin = time.perf_counter()
        call()
        repeats[name] = max(1, int(target / max(time.perf_counter() - begin, 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in competitors}
    for i in range(rounds):
        names = list(competitors)
        for name in names if i % 2 == 0 else reversed(names):
            call, n = competitors[name], repeats[name]
            begin = time.perf_counter()
            for _ in range(n):
                call()
            times[name].append((time.perf_counter() - begin) / n)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def machine() -> dict[str, Any]:
    """Describe the machine and the versions that a result holds for."""
    from fastguide import _cpu

    cpu = next(
        (line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    flags = next((line.split() for line in _lines("/proc/cpuinfo") if line.startswith("flags")), [])
    family = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("cpu family")), "")
    return {
        "cpu": cpu,
        "cpu_family": family,
        "avx512": "avx512f" in flags,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "simd": _cpu.level(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "omp_proc_bind": os.environ.get("OMP_PROC_BIND"),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def table(title: str, seconds: Mapping[str, float], ours: str) -> None:
    """Print milliseconds a call and how many times longer than ``ours`` each competitor takes."""
    print(title)
    for name, t in seconds.items():
        print(f"  {name:<44} {t * 1e3:10.4f} ms   {t / seconds[ours]:7.2f} x")


def save(name: str, rows: list[dict[str, Any]]) -> Path:
    """Write rows and the machine to ``bench/results/<name>.json``."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    return path
