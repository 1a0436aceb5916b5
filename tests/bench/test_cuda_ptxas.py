"""What nvcc makes of the CUDA kernels, as ``bench/results/cuda_ptxas.json`` has it: nothing in local memory."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_spec = importlib.util.spec_from_file_location("cuda_ptxas", ROOT / "bench" / "cuda_ptxas.py")
cuda_ptxas = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cuda_ptxas)

KEPT = json.loads(cuda_ptxas.RESULTS.read_text())["kernels"]


def test_no_kernel_spills():
    assert cuda_ptxas.spilling(KEPT) == []


def test_every_block_can_be_launched_and_two_of_the_common_ones_fit_a_multiprocessor():
    for row in KEPT:
        threads = 512 if "many" in row["kernel"] else 256
        common = row["kernel"] in ("rows: weigh<float, false>", "rows: draw<float, false>", "rows: place<float, true>")
        assert row["registers"] * threads * (2 if common else 1) <= 65_536, row
        assert row["shared"] <= 48 * 1024, row


def test_every_kernel_is_listed_for_every_architecture():
    sources = {path.stem: path.read_text() for path in (ROOT / "csrc" / "cuda").glob("*.cu")}
    expected = {
        f"{stem}: {name}"
        for stem, text in sources.items()
        for name in re.findall(r"__global__ void __launch_bounds__\([^)]*\)+\s+(\w+)\(", text)
    }
    for arch in cuda_ptxas.ARCHITECTURES:
        listed = {row["kernel"].split("<")[0] for row in KEPT if row["architecture"] == f"sm_{arch}"}
        assert listed == expected


def test_the_report_of_ptxas_is_read():
    report = (
        "ptxas info    : Compiling entry function '_ZN2fg4moveEv' for 'sm_90'\n"
        "    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n"
        "ptxas info    : Used 56 registers, used 1 barriers, 300 bytes smem\n"
    )
    if shutil.which("c++filt") is None:
        pytest.skip("no c++filt")
    (row,) = cuda_ptxas.parse(report, "move", 90)
    assert (row["registers"], row["shared"], row["stack"], row["spill_stores"], row["spill_loads"]) == (
        56,
        300,
        8,
        4,
        12,
    )
    assert len(cuda_ptxas.spilling([row])) == 1
