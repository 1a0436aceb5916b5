"""The kernels of ``csrc/cuda``: on the CPU, built by the host compiler, their threads taking turns in two orders so that a
barrier which is missing shows (``tests/native/emulated``); and on a GPU, where there is one.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from fastguide.cuda import _module
from tests.cuda import device


@pytest.fixture(scope="session")
def emulated_module():
    builds = Path(__file__).parents[2].glob("build/*/tests/native/_cuda_emulated*.so")
    path = max(builds, key=lambda path: path.stat().st_mtime, default=None)
    if path is None:
        return None
    spec = importlib.util.spec_from_file_location("_cuda_emulated", path)
    emulated = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(emulated)
    return emulated


PLACES = ["forward", "reversed"] + ["gpu"] * (torch.cuda.is_available() and _module.available())


@pytest.fixture(params=PLACES, autouse=True)
def where(request, emulated_module, monkeypatch) -> Iterator[str]:
    """Run a test on the emulated kernels, with one order of threads and of blocks, or on those of the GPU."""
    if request.param == "gpu":
        monkeypatch.setattr(device, "DEVICE", torch.device("cuda"))
        yield "gpu"
        return
    if emulated_module is None:
        pytest.skip("the emulated kernels are not built: pip install -Ccmake.define.FASTGUIDE_NATIVE_TESTS=ON -e .")
    monkeypatch.setattr(_module, "_cuda", emulated_module)
    emulated_module.set_reversed(request.param == "reversed")
    yield "cpu"
    emulated_module.set_reversed(False)
