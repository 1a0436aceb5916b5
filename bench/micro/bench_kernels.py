"""pytest-benchmark over the registry: every competitor of every case, at small sizes or those of ``FASTGUIDE_BENCH_SIZES``.

    OMP_PROC_BIND=true pytest bench/micro/bench_kernels.py --benchmark-group-by=group -k select

For one kernel while it is being worked on, and to compare two commits (``--benchmark-autosave``, ``pytest-benchmark compare``).
Figures between competitors come from ``fastguide bench``, where they take turns.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from fastguide.bench import registry
from fastguide.bench.case import Case, Sizes
from fastguide.bench.cli import parse_sizes

SIZES = Sizes(parse_sizes(os.environ.get("FASTGUIDE_BENCH_SIZES")), "quick")
CASES = [case for name in (*registry.KERNELS, *registry.WORKLOADS) for case in registry.cases(name, SIZES)]
CALLS = [(case, name) for case in CASES for name in case.competitors]


@pytest.mark.parametrize(("case", "name"), CALLS, ids=[f"{case.op}-{case.job}-{case.n}-{name}" for case, name in CALLS])
def test_speed(case: Case, name: str, benchmark: Callable[..., Any]) -> None:
    benchmark.group = f"{case.op}, {case.job}, N = {case.n}"
    case.check(name, benchmark(case.competitors[name]))
