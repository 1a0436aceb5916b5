"""The page as a whole: self-contained, well formed, complete, and safe with any text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

import fastguide as fg
from fastguide.report import RunData, render
from fastguide.report.charts import MOST_LINEAGES, genealogy_chart, shown_lineages
from fastguide.report.data import Estimate
from fastguide.report.files import write_text
from fastguide.report.numbers import decimals_of, fixed, show, show_estimate
from fastguide.report.values import ValueData, value_section
from tests.report.synthetic import report_data, run_data

VOID = {"meta", "br"}


class Balance(HTMLParser):
    """Checks that tags close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def parse(html: str) -> str:
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    return " ".join(parser.texts)


def test_the_page_loads_nothing_and_runs_nothing() -> None:
    html = render(report_data())
    assert "<script" not in html
    assert not re.search(r"(?:src|href)=[\"'](?!#)", html)
    assert "url(" not in html
    assert "@import" not in html


def test_the_page_has_every_section() -> None:
    text = parse(render(report_data()))
    for heading in (
        "Scores", "Best designs", "Sequences", "Sequence logo of the guided samples", "Amino-acid composition",
        "Effective sample size", "Predicted value", "Unique ancestors", "Genealogy", "Settings", "Manifest", "Run it again",
        "Warning.", "Log normaliser", "Denoiser rows", "Reward rows", "Hamming distance",
    ):  # fmt: skip
        assert heading in text, heading


def test_colours_follow_the_reader_s_theme() -> None:
    html = render(report_data())
    assert "prefers-color-scheme: dark" in html
    assert not re.search(r"(?:fill|stroke)=\"#", html)


def test_without_warnings_the_page_says_so() -> None:
    text = parse(render(replace(report_data(), warnings=[])))
    assert "No alarm" in text
    assert "Warning." not in text


def test_text_from_outside_is_escaped() -> None:
    evil = "<img src=x onerror=alert(1)>"
    data = report_data()
    entries = [replace(data.entries[0], name=evil)]
    assert data.protein is not None
    protein = replace(data.protein, entries=entries)
    settings = {evil: evil}
    scores = [replace(data.scores[0], name=evil), *data.scores[1:]]
    html = render(
        replace(
            data, title=evil, subtitle=evil, warnings=[evil], settings=settings, protein=protein, command=evil, scores=scores
        )
    )  # fmt: skip
    assert "<img" not in html
    parse(html)


def test_entries_without_native_show_a_dash_for_the_recovery() -> None:
    data = report_data()
    assert data.protein is not None
    values = {**data.protein.entries[0].values, "recovery": None}
    entries = [replace(data.protein.entries[0], values=values)]
    html = render(replace(data, entries=entries, protein=replace(data.protein, entries=entries, native=None)))
    assert "<td>–</td>" in html


@pytest.mark.parametrize("particles", [1, 2, 48, 300])
@pytest.mark.parametrize("steps", [1, 3])
def test_runs_of_any_size_draw(particles: int, steps: int) -> None:
    run = run_data(particles=particles, steps=steps)
    data = replace(report_data(), run=run, protein=None, entries=[])
    assert "nan" not in re.sub(r"<style>.*?</style>", "", render(data)).replace("resonance", "")


@pytest.mark.parametrize("groups", [2, 12])
def test_groups_are_drawn_as_lines_or_as_a_band(groups: int) -> None:
    parse(render(replace(report_data(), run=run_data(groups=groups), protein=None)))


def test_of_many_lineages_a_seeded_subset_is_drawn_and_the_page_says_so() -> None:
    assert shown_lineages(1000) == shown_lineages(1000)
    assert len(shown_lineages(1000)) == MOST_LINEAGES
    run = run_data(particles=100, steps=5)
    assert genealogy_chart(run, width=400) == genealogy_chart(run, width=400)
    assert f"{MOST_LINEAGES} of 100, drawn at random (seed 0)" in render(replace(report_data(), run=run))


def test_rewards_of_minus_infinity_do_not_break_the_page() -> None:
    data = report_data()
    guided = data.scores[0].guided.copy()
    guided[:5] = -np.inf
    weights = np.where(np.isfinite(guided), 1.0, 0.0)
    scores = [replace(data.scores[0], guided=guided, weights=weights / weights.sum()), *data.scores[1:]]
    parse(render(replace(data, scores=scores)))


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (float("nan"), "–"), (float("-inf"), "−∞"), (0.0, "0"), (12345.0, "12,345"), (0.01234, "0.0123")],
)
def test_numbers_read_well(value: float | None, text: str) -> None:
    assert show(value) == text


def test_an_error_says_how_many_decimals_are_known() -> None:
    assert show_estimate(Estimate(94.234, 0.31)) == ("94.2", "±\N{NO-BREAK SPACE}0.3")
    assert show_estimate(Estimate(94.234, 0.0123)) == ("94.234", "±\N{NO-BREAK SPACE}0.012")
    assert show_estimate(Estimate(94.234, float("nan"))) == ("94.2", "")


def test_a_column_has_one_number_of_decimals() -> None:
    assert decimals_of([1.0, 2.0, None]) == 0
    assert fixed(-94.2, decimals_of([-94.2, 3.123])) == "−94.20"


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    write_text(target, "first")
    with pytest.raises(UnicodeEncodeError):
        write_text(target, "second \ud800")
    assert target.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def toy_run(guidance: object, *, groups: int = 1, reward_name: str = "ones") -> fg.Result:
    def reward(x: torch.Tensor) -> torch.Tensor:
        return (x == 1).sum(dim=1).double()

    process = fg.MaskedProcess(length=6, vocab=4, steps=5)
    return fg.sample(
        process,
        lambda x, t: torch.zeros(len(x), 6, 4),
        reward,
        guidance,  # type: ignore[arg-type]
        particles=12,
        groups=groups,
        seed=3,
        progress=False,
    )


@pytest.mark.parametrize("guidance", [fg.SMC(alpha=0.5), fg.SVDD(alpha=0.5, branch=3), fg.BestOfN(alpha=1.0)])
def test_any_result_has_a_report(guidance: object, tmp_path: Path) -> None:
    result, unguided = toy_run(guidance, groups=2), toy_run(fg.BestOfN(alpha=0.0))
    path = result.report(tmp_path / "run.html", unguided=unguided, title="Toy", reward="ones")
    text = parse(path.read_text(encoding="utf-8"))
    for heading in ("Toy", "Mean ones", "Best samples", "Effective sample size", "Genealogy", "Rows of each step"):
        assert heading in text


def test_the_weights_of_a_report_are_those_of_the_result() -> None:
    result = toy_run(fg.SMC(alpha=0.5))
    run = RunData.from_result(result)
    expected = torch.softmax(result.log_weights, 0).numpy()
    assert run.weights == pytest.approx(expected)
    assert run.parents.shape == (5, 12)
    assert run.ess_threshold == 0.5


def test_a_report_tells_how_good_the_values_were(tmp_path: Path) -> None:
    process = fg.MaskedProcess(length=6, vocab=4, steps=5)

    def ones(x: torch.Tensor) -> torch.Tensor:
        return (x == 1).sum(dim=1).double()

    found = fg.calibrate(process, lambda x, t: torch.zeros(len(x), 6, 4), ones, particles=200)
    path = toy_run(fg.SMC(alpha=0.5)).report(tmp_path / "run.html", calibration=found, reward="ones")
    text = parse(path.read_text(encoding="utf-8"))
    for words in ("How good the values were", "200 trajectories", "late, after step 4", "Bias of values"):
        assert words in text


def test_values_of_two_steps_have_one_curve() -> None:
    process = fg.MaskedProcess(length=2, vocab=3, steps=2)
    found = fg.calibrate(process, lambda x, t: torch.zeros(len(x), 2, 3), lambda x0: x0[:, 0].double(), particles=20)
    text = value_section(ValueData.from_calibration(found), "ones")
    assert "late, after step 1" in text
    assert "midway" not in text


def test_values_without_spread_are_drawn() -> None:
    process = fg.MaskedProcess(length=2, vocab=3, steps=3)
    found = fg.calibrate(process, lambda x, t: torch.zeros(len(x), 2, 3), lambda x0: torch.zeros(len(x0)), particles=8)
    assert "It stays below one half." in value_section(ValueData.from_calibration(found), "ones")
