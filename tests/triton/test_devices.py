"""Kernels run on the device of their tensors, whichever is current. Without a second GPU, devices are pretended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fastguide.cuda import _module
from fastguide.deferred import Deferred, deferred
from fastguide.ops import _triton, select

pytest.importorskip("triton")


class Devices:
    """What stands in for the devices of ``torch.cuda``: which is current, and how often another was made so."""

    def __init__(self) -> None:
        self.current, self.changes = 0, 0

    @contextmanager
    def device(self, device: torch.device) -> Iterator[None]:
        before, self.current = self.current, device.index
        self.changes += 1
        yield
        self.current = before

    def stream(self) -> Any:
        return SimpleNamespace(cuda_stream=100 + self.current)


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Devices:
    pretended = Devices()
    monkeypatch.setattr(torch.cuda, "device", pretended.device)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: pretended.current)
    monkeypatch.setattr(torch.cuda, "current_stream", pretended.stream)
    return pretended


def tensor_on(index: int) -> Any:
    return SimpleNamespace(is_cuda=True, device=torch.device("cuda", index))


@pytest.mark.parametrize("index", [0, 1])
def test_kernels_are_launched_on_the_device_of_their_tensors(
    index: int, devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = []
    monkeypatch.setattr(_triton._load("move"), "move", lambda *arguments: launched.append((devices.current, arguments)))
    _triton.launcher("move", tensor_on(index), ())(1, 2)
    assert launched == [(index, (1, 2))]
    assert devices.changes == index  # the current device costs no change
    assert devices.current == 0


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("later", [False, True])
def test_so_they_are_where_an_operation_runs(
    later: bool, index: int, devices: Devices, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = []
    launching = _triton._load("_launch")
    monkeypatch.setattr(launching, "new_status", lambda device: device)
    monkeypatch.setattr(launching, "read_status", lambda status: (0, -1))
    monkeypatch.setattr(
        _triton._load("move"), "move", lambda *arguments: launched.append((devices.current, *arguments))
    )
    with deferred(Deferred()) if later else nullcontext():
        assert _triton.run("move", tensor_on(index), "argument") == (0, -1)
    assert launched == [(index, "argument", torch.device("cuda", index))]


@pytest.mark.parametrize("index", [0, 1])
def test_cuda_gets_the_stream_of_the_device_of_its_tensors(index: int, devices: Devices) -> None:
    called = []
    _module.call(lambda *arguments: called.append((devices.current, arguments)), torch.device("cuda", index), 7)
    assert called == [(index, (7, 100 + index))]
    assert devices.changes == index


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs")
def test_the_second_gpu_gives_the_bits_of_the_first() -> None:
    for n in (40, 9001):
        x = torch.randn(3, n)
        first, second = (select(x.to(f"cuda:{i}"), order="slots", seed=1, backend="triton") for i in (0, 1))
        assert all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(first, second, strict=True))
