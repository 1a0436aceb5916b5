import io
import sys
import types

import pytest

from fastguide import progress
from fastguide.progress import Status, describe, make_progress

STATUS = Status(step=3, steps=12, ess=40.4, particles=64, best=91.25, seconds=6.0, seconds_left=18.0)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_describe():
    assert describe(STATUS) == "step 3/12 · ESS 40/64 · best 91.25 · 6 s, 18 s left"


def test_a_terminal_gets_one_line_redrawn(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr(progress, "TERMINAL_SECONDS", 0.0)
    display = make_progress(True)
    for step in (1, 2, 12):
        display(STATUS._replace(step=step))
    display.close()
    text = stream.getvalue()
    assert text.count("\r") == 3
    assert text.endswith("\n")
    assert text.count("\n") == 1


def test_a_log_gets_a_plain_line_at_intervals(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    display = make_progress(True)
    for second in range(0, 100, 10):
        now[0] = float(second)
        display(STATUS)
    display.close()
    assert "\r" not in stream.getvalue()
    assert stream.getvalue().count("\n") == 3


def test_a_callable_gets_the_status():
    seen = []
    make_progress(seen.append)(STATUS)
    assert seen == [STATUS]


def test_false_is_silent(capsys):
    make_progress(False)(STATUS)
    assert capsys.readouterr() == ("", "")


def test_anything_else_is_refused():
    with pytest.raises(TypeError, match="progress"):
        make_progress("bar")


def test_a_notebook_gets_one_line_updated_in_place(monkeypatch):
    shown = []

    class Handle:
        def update(self, data, raw):
            shown.append(data["text/plain"])

    def display(data, raw, display_id):
        shown.append(data["text/plain"])
        return Handle()

    monkeypatch.setitem(sys.modules, "ipykernel", types.ModuleType("ipykernel"))
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    module = types.ModuleType("IPython.display")
    module.display = display
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = make_progress(True)
    for second in (0.2, 0.4, 1.5, 1.6):
        now[0] = second
        bar(STATUS)
    bar(STATUS._replace(step=12))
    bar.close()
    assert [line.count("step") for line in shown] == [0, 1, 1]
