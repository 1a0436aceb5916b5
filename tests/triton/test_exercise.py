"""What compute-sanitizer runs does launch the kernels that it is meant for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.triton.device import DEVICE

pytest.importorskip("triton")


def test_the_kernels_named_are_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.gpu import exercise
    from fastguide.triton import reweight_select, select

    launched = set()

    class Recorded:
        def __init__(self, kernel: Any, name: str) -> None:
            self.kernel, self.name = kernel, name

        def __getitem__(self, grid: Any) -> Any:
            launched.add(self.name)
            return self.kernel[grid]

    for module in (reweight_select, select):
        for name in exercise.TRITON:
            if hasattr(module, name):
                monkeypatch.setattr(module, name, Recorded(getattr(module, name), name))
    exercise.exercise_triton(DEVICE, (20, 900, 5_000))
    assert launched == set(exercise.TRITON)
