"""The pipeline with a stub for the network: what is written, what is kept when something fails."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import fastguide as fg
from fastguide.design import DesignReport, DesignRun, DesignSettings
from fastguide.design.folder import FILES
from fastguide.design.settings import GUIDANCE
from tests.design.stub import alanines

Run = Callable[..., DesignReport]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_writes_its_files_and_says_that_it_finished(design: Run, tmp_path: Path) -> None:
    report = design(fix="A1-4")
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == sorted(FILES)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert manifest["seed"] == 0
    assert manifest["versions"]["fastguide"] == fg.__version__
    assert manifest["columns"]["nll_soluble"]["better"] == "lower"
    assert manifest["denoiser_rows"]["guided"] == report.result.denoiser_rows
    assert manifest["peak_memory_bytes"] > 0


def test_designs_are_distinct_ranked_and_keep_what_was_fixed(design: Run, tmp_path: Path) -> None:
    report = design(fix="A1-4")
    rows = read_csv(tmp_path / "run" / "designs.csv")
    assert [row["rank"] for row in rows] == ["1", "2", "3", "4"]
    rewards = [float(row["reward"]) for row in rows]
    assert rewards == sorted(rewards, reverse=True)
    assert rewards == [sequence.count("A") for sequence in report.sequences]
    assert len(set(report.sequences)) == 4
    assert all(sequence.startswith("MQIF") for sequence in report.sequences)
    assert report.sequences == [row["sequence_A"] for row in rows]


def test_scores_of_a_design_are_those_of_its_sequence(design: Run, tmp_path: Path) -> None:
    design(fix="A1-4")
    row = read_csv(tmp_path / "run" / "designs.csv")[0]
    free = row["sequence_A"][4:]
    nll = (0.5 * free.count("A") + 2.0 * (72 - free.count("A"))) / 72
    assert float(row["nll"]) == pytest.approx(nll, rel=1e-5)
    native = "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG"
    same = sum(a == b for a, b in zip(free, native[4:], strict=True))
    assert float(row["recovery"]) == pytest.approx(same / 72, abs=1e-5)
    assert int(row["mutations"]) == 72 - same


@pytest.mark.parametrize("guidance", GUIDANCE)
def test_every_guidance_runs_and_reports(design: Run, guidance: str, tmp_path: Path) -> None:
    report = design(guidance=guidance, particles=8)
    assert report.scores[0].unguided is not None
    assert "Sequence logo" in (tmp_path / "run" / "report.html").read_text()


def test_the_same_seed_gives_the_same_files_and_another_seed_others(design: Run, tmp_path: Path) -> None:
    first = design(out=tmp_path / "a", seed=5).sequences
    assert design(out=tmp_path / "b", seed=5).sequences == first
    assert design(out=tmp_path / "c", seed=6).sequences != first
    assert (tmp_path / "a" / "designs.csv").read_text() == (tmp_path / "b" / "designs.csv").read_text()


def test_guided_and_unguided_run_share_no_draws(design: Run) -> None:
    report = design(guidance="best-of-n")
    assert not torch.equal(report.result.samples, report.unguided.samples)


def test_fewer_distinct_designs_than_asked_for_are_said_to_be_so(design: Run) -> None:
    report = design(designs=50)
    assert len(report.rows) == 6
    assert "50 designs were asked for, the run has 6 distinct ones" in report.notes


def test_a_run_of_many_particles_scores_a_draw_of_them(design: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastguide.design.pipeline.MOST_SCORED", 5)
    report = design(particles=9)
    assert all(len(score.guided) == 5 for score in report.scores)


def test_a_weighted_reward_shows_its_parts(design: Run, tmp_path: Path) -> None:
    pytest.importorskip("Bio")
    report = design(reward="gravy-2*aromaticity")
    assert [score.name for score in report.scores[:3]] == ["gravy-2*aromaticity", "GRAVY", "aromaticity"]
    assert [score.better for score in report.scores[:3]] == ["higher", "higher", "lower"]
    assert {"gravy", "aromaticity"} <= read_csv(tmp_path / "run" / "designs.csv")[0].keys()


def test_a_reward_that_fails_after_the_unguided_run_leaves_that_on_disk(stub: None, tmp_path: Path) -> None:
    calls = []

    def moody(tokens: torch.Tensor) -> torch.Tensor:
        calls.append(len(tokens))
        if len(calls) > 2:
            raise RuntimeError("the licence server is down")
        return alanines(tokens)

    settings = DesignSettings(reward=moody, particles=4, steps=3, branch=2, out=tmp_path / "run", progress=False)
    run = DesignRun(settings)
    with pytest.raises(fg.RewardError, match="the licence server is down"):
        run.execute()
    assert run.folder.written == ["manifest.json", "unguided.csv"]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "failed"
    assert "licence server" in manifest["error"]


def test_designs_are_on_disk_before_they_are_scored(
    stub: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, tokens: torch.Tensor, **more: object) -> torch.Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr("tests.design.stub.StubMPNN.nll", broken)
    settings = DesignSettings(reward=alanines, particles=4, steps=3, branch=2, out=tmp_path / "run", progress=False)
    with pytest.raises(KeyboardInterrupt):
        DesignRun(settings).execute()
    rows = read_csv(tmp_path / "run" / "designs.csv")
    assert rows[0]["sequence_A"]
    assert rows[0]["nll"] == ""
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["status"] == "interrupted"


def test_a_reward_that_forbids_everything_is_named(stub: None, tmp_path: Path) -> None:
    def never(tokens: torch.Tensor) -> torch.Tensor:
        return torch.full((len(tokens),), -torch.inf)

    settings = DesignSettings(reward=never, particles=4, steps=3, branch=2, out=tmp_path / "run", progress=False)
    with pytest.raises(fg.DegenerateWeights, match="weight zero"):
        DesignRun(settings).execute()


def test_threads_are_put_back(design: Run) -> None:
    before = torch.get_num_threads()
    design(threads=1)
    assert torch.get_num_threads() == before


def test_a_backbone_without_known_amino_acids_has_no_native_scores(design: Run, tmp_path: Path) -> None:
    source = Path(fg.__file__).parent / "data" / "1UBI.pdb"
    lines = [line for line in source.read_text().splitlines() if line.startswith("ATOM")]
    backbone = [line[:17] + "UNK" + line[20:] for line in lines if line[12:16].strip() in ("N", "CA", "C", "O")]
    (tmp_path / "blank.pdb").write_text("\n".join([*backbone, "END", ""]))
    report = design(pdb=tmp_path / "blank.pdb")
    assert all(score.native is None for score in report.scores)
    assert report.rows[0].recovery is None
    assert read_csv(tmp_path / "run" / "designs.csv")[0]["recovery"] == ""
