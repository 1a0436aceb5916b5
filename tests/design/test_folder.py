"""A run never writes over another one unless told to."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastguide.design.folder import RunFolder


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="is not empty; name another folder, or add --overwrite"):
        RunFolder(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(ValueError, match="is a file; name a folder"):
        RunFolder(tmp_path / "out")


def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"out: cannot create .*; name another folder"):
        RunFolder(tmp_path / "notes.txt" / "run").claim("1UBI")


def test_overwriting_deletes_the_files_of_a_run_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "report.html").write_text("old")
    folder = RunFolder(tmp_path, overwrite=True)
    assert (tmp_path / "report.html").exists()  # nothing is lost before there is something to write
    folder.claim("1UBI")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_nothing_is_created_before_the_first_claim(tmp_path: Path) -> None:
    RunFolder(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_without_a_name_each_run_gets_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [RunFolder(None).claim("1UBI").name for _ in range(3)] == [
        "fastguide_1UBI",
        "fastguide_1UBI_2",
        "fastguide_1UBI_3",
    ]


def test_it_says_what_is_on_disk(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert folder.describe() == "nothing was written"
    folder.claim("1UBI")
    folder.write("designs.csv", "a")
    folder.write("designs.csv", "b")
    assert folder.describe() == f"on disk in {tmp_path / 'run'}: designs.csv"
    assert (tmp_path / "run" / "designs.csv").read_text() == "b"
