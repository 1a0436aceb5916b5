"""Side-by-side timing: competitors alternate in one process, and ratios of medians are what counts."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import torch

ROUNDS = 15
COPY_BYTES = 2**28
"""Read and written by one turn of the copy: far beyond the caches."""
LONG = 1.0
"""Seconds from which on a call is warmed up by one other, not two."""
PACKAGES = ("torch", "numpy", "numba", "particles", "blackjax", "jax", "jaxlib")


class Ratio(NamedTuple):
    """How many times longer one competitor takes than another.

    Attributes:
        median: the ratio of the medians.
        low: the 10 % quantile of the ratios of single rounds. high: the 90 % quantile.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Times:
    """Seconds a call of each competitor: one number for each round it took part in."""

    seconds: Mapping[str, Mapping[int, float]]

    def median(self, name: str) -> float:
        """Return the median over the rounds."""
        return statistics.median(self.seconds[name].values())

    def spread(self, name: str) -> tuple[float, float]:
        """Return the 10 % and the 90 % quantile over the rounds."""
        return _tails(list(self.seconds[name].values()))

    def ratio(self, longer: str, shorter: str) -> Ratio:
        """Return how many times longer ``longer`` takes than ``shorter``."""
        a, b = self.seconds[longer], self.seconds[shorter]
        single = [a[i] / b[i] for i in a if i in b]
        return Ratio(self.median(longer) / self.median(shorter), *_tails(single))

    @property
    def medians(self) -> dict[str, float]:
        """The median of each competitor."""
        return {name: self.median(name) for name in self.seconds}


def _tails(values: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return ordered[round(0.1 * (len(ordered) - 1))], ordered[round(0.9 * (len(ordered) - 1))]


def alternate(
    competitors: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = ROUNDS,
    target: float = 0.02,
    budget: float = 3.0,
    known: Mapping[str, float] | None = None,
) -> Times:
    """Time competitors in turn.

    Args:
        competitors: what to call, by name. Each is called twice first, so that compilation and page faults are paid (once
            where a call takes `LONG` and more).
        rounds: rounds in which every competitor has one turn, in alternating direction.
        target: seconds a turn lasts at least; short calls are repeated to fill it.
        budget: seconds that one competitor may take in all; a slower one takes part in fewer rounds, spread evenly, and in
            three at least.
        known: seconds that a call of a competitor took already; where that is `LONG` and more, it is not called first.
    """
    repeats, turns = {}, {}
    for name, call in competitors.items():
        once = (known or {}).get(name, 0.0)
        for _ in range(2):
            once = _seconds(call, 1) if once < LONG else once
        repeats[name] = max(1, int(target / max(once, 1e-7)))
        turns[name] = min(rounds, max(3, int(budget / (once * repeats[name]))))
    seconds: dict[str, dict[int, float]] = {name: {} for name in competitors}
    for i in range(rounds):
        names = [name for name in competitors if i * turns[name] // rounds != (i - 1) * turns[name] // rounds]
        for name in names if i % 2 == 0 else reversed(names):
            seconds[name][i] = _seconds(competitors[name], repeats[name])
    return Times(seconds)


def _seconds(call: Callable[[], Any], repeats: int) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - begin) / repeats


def copy_bandwidth(rounds: int = ROUNDS) -> float:
    """Return the bytes a second that ``copy_`` into an existing tensor reads and writes, with torch's threads."""
    source = torch.zeros(COPY_BYTES // 8, dtype=torch.float32, device="cpu")
    target = torch.zeros_like(source)
    return COPY_BYTES / alternate({"copy": lambda: target.copy_(source)}, rounds=rounds).median("copy")


def machine() -> dict[str, Any]:
    """Describe the machine and the versions that a result holds for."""
    from fastguide import _cpu

    lines = [line.split(":", 1) for line in _lines("/proc/cpuinfo") if ":" in line]
    info = {key.strip(): value.strip() for key, value in reversed(lines)}
    return {
        "cpu": info.get("model name", platform.processor()),
        "cpu_family": info.get("cpu family", ""),
        "avx512": "avx512f" in info.get("flags", "").split(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "simd": _cpu.level(),
        "python": platform.python_version(),
        **{name: version for name in PACKAGES if (version := _version(name)) is not None},
        "omp_proc_bind": os.environ.get("OMP_PROC_BIND"),
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
