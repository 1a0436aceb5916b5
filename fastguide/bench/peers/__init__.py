"""How each peer is called: one file a package, each call in the best form known to us.

A file gives functions that build the competitors of a job, and imports its package inside them, so that a package that is
not installed is named as absent and hinders nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

ABSENT = "not installed"


def package(name: str) -> Any:
    """Return a module, or None where it is not installed.

    It is imported on all cores: numba counts those of the importing thread, and takes their number for the most threads.
    """
    try:
        with all_cores():
            return import_module(name)
    except ImportError:
        return None


@contextmanager
def all_cores() -> Iterator[None]:
    """Let threads that are started here run on every core.

    ``OMP_PROC_BIND`` binds the calling thread to its core when OpenMP is loaded, and a thread pool that is not OpenMP's
    would inherit that: both its threads on one core.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        # A container that forbids it has its own idea of cores.
        with suppress(OSError):
            os.sched_setaffinity(0, range(os.cpu_count() or 1))
        yield
    finally:
        os.sched_setaffinity(0, before)
