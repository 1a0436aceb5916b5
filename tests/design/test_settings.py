"""Settings are checked when they are made, and can be written as a command line."""

from __future__ import annotations

import shlex
from typing import Any

import pytest

import fastguide as fg
from fastguide.cli import main
from fastguide.design import DesignSettings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"particles": 0}, "particles: expected a whole number of at least 1, got 0"),
        ({"particles": True}, "particles: "),
        ({"steps": -3}, "steps: "),
        ({"designs": 0}, "designs: "),
        ({"orders": 0}, "orders: "),
        ({"threads": 0}, "threads: "),
        ({"seed": -1}, "seed: expected a whole number of 0 <= seed < 2"),
        ({"temperature": float("nan")}, "temperature: "),
        ({"alpha": -1.0}, "alpha: expected a finite number of at least 0, got -1.0"),
        ({"guidance": "smc", "alpha": 0.0}, "alpha: 0 leaves no weights"),
        ({"guidance": "ddpm"}, "guidance: unknown 'ddpm'; choose one of smc, nested-smc, svdd, beam, best-of-n"),
        ({"branch": 1}, "branch: expected a whole number of at least 2"),
        ({"fasta_style": "genbank"}, "fasta_style: unknown 'genbank'"),
        ({"reward": "  "}, "reward: expected a text such as 'plddt'"),
        ({"threads": 100_000}, "threads: expected at most 1,024, got 100,000"),
        ({"particles": 10**11}, "particles: expected at most 1,000,000"),
        ({"alpha": 1e-320}, "alpha: 1e-320 is too small; give at least 1e-06"),
        ({"temperature": 1e-30}, "temperature: 1e-30 is too small"),
        ({"pdb": ""}, "pdb: an empty path; name a file"),
        ({"out": ""}, "out: an empty path; name a folder"),
        ({"memory": "plenty"}, "memory: cannot read 'plenty'"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DesignSettings(**changes)


@pytest.mark.parametrize("name", ["chain", "fix", "redesign", "tie", "pdb", "out"])
def test_a_number_is_neither_a_selection_nor_a_path(name: str) -> None:
    with pytest.raises(TypeError, match=f"{name}: expected a .*, got int"):
        DesignSettings(**{name: 3})  # type: ignore[arg-type]


def test_the_guidance_has_the_settings() -> None:
    assert DesignSettings(guidance="svdd", alpha=0.25, branch=5).make_guidance() == fg.SVDD(alpha=0.25, branch=5)
    assert DesignSettings(guidance="nested-smc", alpha=0.5).make_guidance() == fg.NestedSMC(alpha=0.5, branch=8)
    assert DesignSettings(guidance="beam", branch=5).make_guidance() == fg.Beam(branch=5)
    assert DesignSettings(guidance="smc", alpha=0.25).make_guidance() == fg.SMC(alpha=0.25)
    assert DesignSettings(guidance="best-of-n", alpha=0.0).make_guidance() == fg.BestOfN(alpha=0.0)


def test_the_command_gives_the_same_settings_back(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = DesignSettings(pdb="a b.pdb", fix="A1-4,A9", alpha=0.1, guidance="smc", seed=7, omit="C;A3:P")
    command = settings.command()
    assert command is not None
    seen = []
    monkeypatch.setattr("fastguide.design.DesignRun", lambda given, say: seen.append(given) or _Stop())
    with pytest.raises(SystemExit):
        main([*shlex.split(command)[1:], "--quiet"])
    assert seen[0].command() == command


class _Stop:
    folder = type("Folder", (), {"written": ()})

    def execute(self) -> None:
        raise ValueError("far enough")


def test_a_callable_has_no_command_line_but_a_name() -> None:
    settings = DesignSettings(reward=len)
    assert settings.command() is None
    assert settings.as_dict()["reward"] == "len"
