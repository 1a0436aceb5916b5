"""What the README says is run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_python_example_runs(tmp_path, monkeypatch):
    (example,) = blocks("python")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(example, "README.md", "exec"), names)
    result = names["result"]
    assert result.draw(10).shape == (10, 12)
    assert "</html>" in (tmp_path / "run.html").read_text(encoding="utf-8")


def test_the_ci_runs_the_test_command():
    commands = [line for block in blocks("sh") for line in block.splitlines() if "pytest" in line]
    assert commands
    pytest_command = commands[0].split("&&")[-1].strip()
    assert pytest_command in (README.parent / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", re.findall(r"\]\(((?!http)[^)#]+)\)", README.read_text(encoding="utf-8")))
def test_links_lead_somewhere(path):
    assert (README.parent / path).exists()
