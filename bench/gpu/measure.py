"""Timing on a device, competitors in turn: eager calls and replays of a captured graph, medians of many samples.

Every sample is a number of calls between two events. Eager samples include what the host cannot hide; a replay does not.
Inputs of less than the second-level cache stay in it, as they do in a loop: floors are to be read at large sizes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch

SAMPLES = 15
SAMPLE_SECONDS = 0.002
LONG = 0.2
"""Seconds from which on a call is timed three times only."""


@dataclass(frozen=True)
class Job:
    """One job at one size.

    Attributes:
        op, job, n: what it is; ``n`` is the size that grows.
        competitors: what to call, by name, ours first.
        moved: bytes that any method must move, inputs read once and outputs written once; 0 where arithmetic bounds.
        same: competitors whose results, tuples of tensors, must have the same bits.
        graph: competitors to capture in a graph as well.
        size: the other sizes, for the record.
    """

    op: str
    job: str
    n: int
    competitors: Mapping[str, Callable[[], Any]]
    moved: int = 0
    same: tuple[str, ...] = ()
    graph: tuple[str, ...] = ()
    size: Mapping[str, Any] = field(default_factory=dict)


class Device:
    """Where jobs run: a GPU, or the CPU to try the jobs on (its times say nothing)."""

    def __init__(self, name: str) -> None:
        self.device = torch.device(name)
        self.is_gpu = self.device.type == "cuda"
        self.backends = ("cuda", "triton") if self.is_gpu else ("cpu",)

    def name(self) -> str:
        return torch.cuda.get_device_name() if self.is_gpu else "cpu"

    def synchronize(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()

    def seconds(self, call: Callable[[], Any], repeats: int) -> float:
        """Return the seconds of one of ``repeats`` calls."""
        if not self.is_gpu:
            begin = time.perf_counter()
            for _ in range(repeats):
                call()
            return (time.perf_counter() - begin) / repeats
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        for _ in range(repeats):
            call()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1000 / repeats

    def median(self, calls: Mapping[str, Callable[[], Any]], samples: int = SAMPLES) -> dict[str, dict[str, float]]:
        """Time calls in turn; return of each the median and the 10 % and 90 % quantiles, in seconds."""
        repeats, turns = {}, {}
        for name, call in calls.items():
            for _ in range(2):
                once = self.seconds(call, 1)
            once = min(once, self.seconds(call, 3)) if once < LONG else once
            repeats[name] = max(1, min(2000, int(SAMPLE_SECONDS / max(once, 1e-7))))
            turns[name] = samples if once < LONG else 3
        found: dict[str, list[float]] = {name: [] for name in calls}
        for i in range(samples):
            for name, call in calls.items():
                if i < turns[name]:
                    found[name].append(self.seconds(call, repeats[name]))
        return {name: _quantiles(times) for name, times in found.items()}

    def copy_bandwidth(self) -> float:
        """Return the bytes a second that a copy of 1 GiB reads and writes."""
        count = 2**28 if self.is_gpu else 2**20
        source = torch.rand(count, device=self.device)
        target = torch.empty_like(source)
        return 8 * count / self.median({"copy": lambda: target.copy_(source)})["copy"]["median"]

    def capture(self, call: Callable[[], Any], context: Callable[[], AbstractContextManager[Any]] = nullcontext) -> Any:
        """Return a function that replays ``call`` from a graph."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream), context():
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph), context():
            kept = call()
        replay = graph.replay
        replay()
        torch.cuda.synchronize()

        def run() -> Any:
            replay()
            return kept

        return run


def _quantiles(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "median": statistics.median(ordered),
        "low": ordered[round(0.1 * (len(ordered) - 1))],
        "high": ordered[round(0.9 * (len(ordered) - 1))],
        "samples": len(ordered),
    }


def run_job(
    device: Device, job: Job, bandwidth: float, context: Callable[[], AbstractContextManager[Any]]
) -> dict[str, Any]:
    """Check and time a job. A competitor that fails is named with its error, and the others go on."""
    row: dict[str, Any] = {"op": job.op, "job": job.job, "n": job.n, "moved": job.moved, **job.size, "failed": {}}
    calls, results = {}, {}
    for name, call in job.competitors.items():
        try:
            with context():
                results[name] = call()
            device.synchronize()
            calls[name] = _inside(context, call)
        except Exception as error:
            row["failed"][name] = f"{type(error).__name__}: {str(error)[:300]}"
    compared = [name for name in job.same if name in results]
    for name in compared[1:]:
        if not all(torch.equal(a, b) for a, b in zip(results[compared[0]], results[name], strict=True)):
            row["failed"][name] = f"result differs from that of {compared[0]}"
            del calls[name]
    results.clear()
    if device.is_gpu:
        for name in job.graph:
            if name in calls:
                try:
                    calls[f"{name}, graph"] = device.capture(job.competitors[name], context)
                except Exception as error:
                    row["failed"][f"{name}, graph"] = f"{type(error).__name__}: {str(error)[:300]}"
                    device.synchronize()
    row["seconds"] = device.median(calls)
    if job.moved:
        row["of_copy"] = {name: job.moved / s["median"] / bandwidth for name, s in row["seconds"].items()}
    return row


def _inside(context: Callable[[], AbstractContextManager[Any]], call: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        with context():
            return call()

    return run
