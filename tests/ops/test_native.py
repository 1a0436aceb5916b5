"""The extension: its SIMD levels, and whether it is as new as its sources."""

from __future__ import annotations

import os
import warnings

import pytest

from fastguide import _cpu
from fastguide.ops import _native


def test_the_best_level_is_in_force_unless_another_is_asked_for():
    assert _cpu.level() in _cpu.levels()
    assert "portable" in _cpu.levels()


def test_an_unknown_level_is_refused():
    with pytest.raises(ValueError, match="avx1024"):
        _cpu.force_level("avx1024")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A package folder with sources beside it and an extension of its own."""
    source = tmp_path / "csrc" / "cpu" / "select.cpp"
    extension = tmp_path / "_cpu.so"
    source.parent.mkdir(parents=True)
    source.touch()
    extension.touch()
    monkeypatch.setattr(_native, "__file__", str(tmp_path / "fastguide" / "ops" / "_native.py"))
    monkeypatch.setattr(_native._cpu, "__file__", str(extension))
    return source, extension


def test_a_stale_extension_says_what_to_run(checkout):
    _, extension = checkout
    os.utime(extension, (1, 1))
    with pytest.warns(RuntimeWarning, match=r"older than its sources.*pip install -e \."):
        _native._warn_if_stale()


def test_a_fresh_extension_is_silent(checkout):
    source, _ = checkout
    os.utime(source, (1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _native._warn_if_stale()
