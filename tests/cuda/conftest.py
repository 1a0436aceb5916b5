"""The kernels of ``csrc/cuda`` on the CPU: compiled by the host compiler, their threads taking turns (``tests/native/emulated``).

Two orders of turns, so that a barrier which is missing shows.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastguide.cuda import _module


def emulated_path() -> Path | None:
    """Return the newest build of the emulated kernels."""
    builds = Path(__file__).parents[2].glob("build/*/tests/native/_cuda_emulated*.so")
    return max(builds, key=lambda path: path.stat().st_mtime, default=None)


@pytest.fixture(scope="session")
def module():
    path = emulated_path()
    if path is None:
        pytest.skip("the emulated kernels are not built: pip install -Ccmake.define.FASTGUIDE_NATIVE_TESTS=ON -e .")
    spec = importlib.util.spec_from_file_location("_cuda_emulated", path)
    emulated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(emulated)
    return emulated


@pytest.fixture(params=["forward", "reversed"], autouse=True)
def emulated(request, module, monkeypatch) -> Iterator[None]:
    """Put the emulated kernels in the place of the extension, with one order of threads and of blocks."""
    monkeypatch.setattr(_module, "_cuda", module)
    module.set_reversed(request.param == "reversed")
    yield
    module.set_reversed(False)
