"""What is measured on a GPU, tried without one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench.gpu import floors, jobs, run, steps
from bench.gpu.measure import Device, run_job

ROOT = Path(__file__).parents[2]


def test_the_page_shows_the_floors():
    assert floors.table() in (ROOT / "docs" / "gpu.md").read_text()


@pytest.mark.skipif(torch.cuda.is_available() or shutil.which("bash") is None, reason="for a machine without a GPU")
def test_without_a_gpu_the_script_says_what_it_skips(tmp_path):
    script = ROOT / "bench" / "gpu.sh"
    subprocess.run(["bash", "-n", script], check=True)
    environment = {**os.environ, "OUT": str(tmp_path), "PYTHON": sys.executable}
    done = subprocess.run(["bash", script, "bench"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "SKIPPED bench: torch finds no GPU\n"
    assert (tmp_path / "gpu.log").read_text() == done.stdout
    assert subprocess.run(["bash", script, "everything"], env=environment, capture_output=True).returncode == 2


def test_every_job_can_be_built_and_run():
    device = Device("cpu")
    for build in [*steps.all_steps(device, True), *jobs.all_jobs(device, (64,))]:
        job = build()
        results = {name: call() for name, call in job.competitors.items()}
        assert set(job.same) <= set(results), job
        assert set(job.graph) <= set(results), job


def test_a_report_names_what_failed_and_what_differs(tmp_path):
    device = Device("cpu")
    x = torch.arange(4.0)

    def broken() -> None:
        raise RuntimeError("no such kernel")

    job = jobs.Job("copy", "of four", 4, {"a": lambda: (x,), "b": lambda: (x + 1,), "c": broken}, 32, ("a", "b"))
    report = run.Report(tmp_path, run.describe(device), 1e9)
    report.add(run_job(device, job, 1e9, run._context(device)))
    (row,) = json.loads((tmp_path / "cpu.json").read_text())["jobs"]
    assert row["failed"] == {"c": "RuntimeError: no such kernel", "b": "result differs from that of a"}
    assert list(row["seconds"]) == ["a"]
    assert "| copy, of four | 4 | c | failed | | RuntimeError: no such kernel |" in (tmp_path / "cpu.md").read_text()
