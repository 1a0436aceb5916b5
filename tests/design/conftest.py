from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastguide.design import DesignReport, DesignSettings, pipeline
from tests.design.stub import StubMPNN, alanines


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the network, so that a run takes a second."""
    monkeypatch.setattr(pipeline, "ProteinMPNN", StubMPNN)


@pytest.fixture
def design(stub: None, tmp_path: Path) -> Callable[..., DesignReport]:
    """Run a small design into ``tmp_path / "run"``."""

    def run(**changes: Any) -> DesignReport:
        chosen = {"reward": alanines, "particles": 6, "branch": 3, "steps": 4, "designs": 4, "orders": 1, "alpha": 1.0}
        chosen |= {"out": tmp_path / "run", "progress": False, **changes}
        return pipeline.run(DesignSettings(**chosen))

    return run
