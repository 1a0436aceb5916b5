"""The scripts of ``examples/dropin`` run, and say what they were before."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path

import pytest

from tests.adapters import stub_esm

FOLDER = Path(__file__).parents[2] / "examples" / "dropin"
NEEDS = {
    "guided_text.py": "transformers",
    "images.py": "diffusers",
    "particle_filter.py": "particles",
    "tempered_smc.py": "jax",
}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda p: p.name)
def test_a_script_runs(path, capsys, monkeypatch):
    if path.name == "protein_decoding.py":
        stub_esm.install(monkeypatch)  # the SDK's weights need a login
    package = NEEDS.get(path.name)
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"needs {package}")
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out.strip()
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    assert len(lines) <= 18
    assert sum("fastguide" in line for line in lines) <= 2
