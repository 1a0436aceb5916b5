"""All benchmarks of a GPU: ``python -m bench.gpu.run --out FOLDER --minutes 8``.

Writes ``<gpu>.json`` and ``<gpu>.md`` after every job, so that what there is when time is over, or something breaks, is kept.
``--device cpu`` tries the jobs at tiny sizes where there is no GPU; those times say nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import re
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from bench.gpu import jobs, loops, steps
from bench.gpu.measure import Device, run_job
from fastguide.deferred import Deferred, deferred

PACKAGES = ("torch", "triton", "cupy-cuda13x", "numpy", "fastguide")
DATASHEET = {"H100": 3.35e12, "H200": 4.8e12}


def describe(device: Device) -> dict[str, Any]:
    """Say what the results hold for."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    from fastguide import cuda

    found = {"device": device.name(), "python": platform.python_version(), **versions, "extension": cuda.available()}
    if device.is_gpu:
        properties = torch.cuda.get_device_properties(device.device)
        found |= {
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "memory": properties.total_memory,
            "driver": _driver(),
        }
    found["commit"] = _line("git", "rev-parse", "--short", "HEAD")
    return found


def _driver() -> str | None:
    return _line("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")


def _line(*command: str) -> str | None:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


class Report:
    """The two files of a run."""

    def __init__(self, folder: Path, machine: dict[str, Any], bandwidth: float) -> None:
        name = re.sub(r"[^a-z0-9]+", "_", machine["device"].lower()).strip("_")
        self.path = folder / f"{name}.json"
        self.content: dict[str, Any] = {"machine": machine, "copy_bandwidth": bandwidth, "jobs": [], "not_run": []}

    def add(self, row: dict[str, Any]) -> None:
        self.content["jobs"].append(row)
        self.write()
        times = ", ".join(f"{name} {_time(s['median'])}" for name, s in row.get("seconds", {}).items())
        failed = "".join(f"; FAILED {name}: {why}" for name, why in row["failed"].items())
        print(f"{row['op']} {row['job']}, n = {row['n']}: {times}{failed}", flush=True)

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.content, indent=1) + "\n")
        self.path.with_suffix(".md").write_text("\n".join(_markdown(self.content)) + "\n")


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _markdown(content: dict[str, Any]) -> Iterator[str]:
    machine = content["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in PACKAGES if machine.get(name))
    yield f"# Measured on {machine['device']}"
    yield ""
    yield f"{versions}, Python {machine['python']}, driver {machine.get('driver')}, commit {machine.get('commit')}."
    yield f"A copy of 1 GiB moved {content['copy_bandwidth'] / 1e12:.2f} TB/s, read and written, in the same run."
    yield "Medians; “of copy” is the bytes that any method must move, over the time, over that bandwidth; it exceeds 1"
    yield "where the data stay in the cache."
    yield ""
    yield "| job | n | | time | 10–90 % | of copy |"
    yield "|---|--:|---|--:|--:|--:|"
    for row in content["jobs"]:
        for name, s in row.get("seconds", {}).items():
            share = row.get("of_copy", {}).get(name)
            spread = f"{_time(s['low'])}–{_time(s['high'])}"
            yield (
                f"| {row['op']}, {row['job']} | {row['n']} | {name} | {_time(s['median'])} | {spread} | "
                f"{'' if share is None else f'{share:.2f}'} |"
            )
        for name, why in row["failed"].items():
            yield f"| {row['op']}, {row['job']} | {row['n']} | {name} | failed | | {why.splitlines()[0][:120]} |"
    if content["not_run"]:
        yield ""
        yield f"Not run: {'; '.join(content['not_run'])}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench/results/gpu"))
    parser.add_argument("--minutes", type=float, default=8.0, help="no job is begun later than this")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", default="", help="jobs whose operation and name hold this text")
    arguments = parser.parse_args()
    deadline = time.monotonic() + 60 * arguments.minutes
    device = Device(arguments.device)
    tiny = not device.is_gpu
    torch.manual_seed(0)
    machine, bandwidth = describe(device), device.copy_bandwidth()
    report = Report(arguments.out, machine, bandwidth)
    report.write()
    print(json.dumps(machine), f"copy {bandwidth / 1e12:.3f} TB/s", flush=True)

    context = _context(device)
    # What matters most comes first: time may run out.
    planned = [
        *steps.all_steps(device, tiny),
        *jobs.all_jobs(device, jobs.TINY if tiny else tuple(sorted(jobs.SIZES, key=_worth))),
    ]
    for build in planned:
        if time.monotonic() > deadline:
            report.content["not_run"].append("jobs after those listed, for want of time")
            break
        try:
            job = build()
            if arguments.only in f"{job.op} {job.job}":
                report.add(run_job(device, job, bandwidth, context))
            del job
        except Exception as error:
            traceback.print_exc()
            report.content["not_run"].append(f"a job: {type(error).__name__}: {str(error)[:200]}")
        gc.collect()
        if device.is_gpu:
            torch.cuda.empty_cache()
    for loop in loops.all_loops(device, tiny):
        if time.monotonic() > deadline or arguments.only not in "run":
            break
        report.add(loop())
    for n in (16,) if tiny else (4096, 65536):
        if time.monotonic() > deadline or arguments.only not in "protein":
            continue
        from bench.gpu import protein

        report.add(protein.run(device, n))
    report.write()
    print(f"wrote {report.path} and {report.path.with_suffix('.md')}")


def _worth(n: int) -> int:
    """Order sizes so that the ones with figures to reach come first."""
    return (2**20, 2**24, 2**17, 2**26, n).index(n)


def _context(device: Device) -> Callable[[], AbstractContextManager[Any]]:
    """Return what lets errors stay on the device: nothing may wait for it inside a graph."""
    if not device.is_gpu:
        return nullcontext
    words = _Unread()
    return lambda: deferred(words)


class _Unread(Deferred):
    """Status words that are never read, and no checks: benchmarks repeat calls that are right."""

    def add(self, *check: Any) -> None:
        return None


if __name__ == "__main__":
    main()
