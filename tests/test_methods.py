"""The examples of `docs/methods.md` run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

import fastguide as fg
from tests.oracle.masked import TabularMasked

METHODS = Path(__file__).parents[1] / "docs" / "methods.md"


def example_with(word: str) -> str:
    found = re.findall(r"```python\n(.*?)```", METHODS.read_text(encoding="utf-8"), re.DOTALL)
    (example,) = [text for text in found if word in text]
    return example


def test_the_comparison_of_the_example_compares(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    oracle = TabularMasked()
    names = {"fg": fg, "process": oracle.process, "denoiser": oracle.denoiser, "reward": oracle.reward}
    exec(compile(example_with("fg.compare"), "methods.md", "exec"), names)
    assert "3,000 reward rows" in capsys.readouterr().out
    assert (tmp_path / "compare.png").exists()


def test_a_product_is_weighed_and_a_student_taught():
    oracle = TabularMasked()
    names = {"fg": fg, "torch": torch, "process": oracle.process, "denoiser": oracle.denoiser, "reward": oracle.reward}
    names["student"] = Student(torch.nn.Embedding(4, 3))
    for word in ("cold", "distilled"):
        exec(compile(example_with(word), "methods.md", "exec"), names)
        assert len(names["found"].log_weights.unique()) > 1


class Student(torch.nn.Module):
    """Takes the noise level beside the tokens."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x, t):
        return self.body(x)


def test_the_guidance_of_the_example_steers():
    example = example_with("class EpsilonGreedy")
    assert len(example.splitlines()) <= 30
    names: dict[str, object] = {}
    exec(compile(example, "methods.md", "exec"), names)
    oracle = TabularMasked()
    means = []
    for epsilon in (1.0, 0.3, 0.0):
        guidance = names["EpsilonGreedy"](epsilon=epsilon)
        result = fg.sample(oracle.process, oracle.denoiser, oracle.reward, guidance, particles=2_000, progress=False)
        means.append(float(result.rewards.mean()))
    assert means == sorted(means)


def test_every_guidance_is_told_of():
    text = METHODS.read_text(encoding="utf-8")
    for name in fg.guidance.__all__:
        if name not in ("Driver", "Guidance", "Proposal", "State"):
            assert re.search(rf"`{name}`|\bfg\.{name}\b", text), name
