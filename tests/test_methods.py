"""The example of `docs/methods.md` is a guidance."""

from __future__ import annotations

import re
from pathlib import Path

import fastguide as fg
from tests.oracle.masked import TabularMasked

METHODS = Path(__file__).parents[1] / "docs" / "methods.md"


def test_the_guidance_of_the_example_steers():
    (example,) = re.findall(r"```python\n(.*?)```", METHODS.read_text(encoding="utf-8"), re.DOTALL)
    assert len(example.splitlines()) <= 35
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
        if name not in ("Guidance", "State"):
            assert f"`{name}`" in text
