"""The tables of distances: small ones are made, and those of the documents are the recorded ones."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import fastguide as fg
from tests.oracle import table

ROOT = Path(__file__).parents[2]


def test_a_small_table_is_printed_and_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(table, "SIZES", (50, 200))
    monkeypatch.setattr(table, "GROUPS", (4, 2))
    monkeypatch.setattr(table, "CONSISTENT", {"SMC": fg.SMC()})
    monkeypatch.setattr(table, "GUIDED", {"TDS": fg.TDS()})
    monkeypatch.setattr(table, "BIASED", {"SVDD 2": fg.SVDD(branch=2)})
    monkeypatch.setattr(table, "pooled_distance", lambda *args, **options: 0.005)
    monkeypatch.setattr(sys, "argv", ["table", "guidance", "--out", str(tmp_path)])
    table.main()
    rows = json.loads((tmp_path / "oracle.json").read_text(encoding="utf-8"))["guidance"]
    assert [row["guidance"] for row in rows] == ["SMC", "TDS", "SVDD 2"]
    assert rows[0]["N = 50"] > rows[0]["N = 200"]
    assert rows[2]["slope"] is None
    printed = capsys.readouterr().out
    assert all(table.line(row) in printed for row in rows)
    assert "## Guidance" in (tmp_path / "oracle.md").read_text(encoding="utf-8")


def test_an_unknown_section_is_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["table", "colors"])
    with pytest.raises(SystemExit):
        table.main()
    assert "unknown section colors" in capsys.readouterr().err


def recorded():
    return json.loads((ROOT / "bench" / "results" / "oracle.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("section", table.SECTIONS)
def test_the_page_on_methods_shows_what_is_recorded(section):
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    for row in recorded()[section]:
        assert table.line(row) in text


def test_what_is_consistent_is_within_its_bars():
    """As recorded: at most 1.5 times the distance of exact draws, slope −0.5 ± 0.05, a hundred runs within 0.01."""
    rows = [row for section in ("guidance", "values", "processes") for row in recorded()[section]]
    consistent = [row for row in rows if row["slope"] is not None]
    assert len(consistent) > 40
    for row in consistent:
        assert row["× exact draws"] <= 1.5
        assert row["100 runs"] <= 0.01
        assert abs(row["slope"] + 0.5) <= 0.05
