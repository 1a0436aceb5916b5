"""Progress of a long run: a bar in a terminal, one line in a notebook, a plain line every 30 s in a log, or a callable."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

LOG_SECONDS = 30.0
"""Least time between two lines in a log."""
TERMINAL_SECONDS = 0.1
"""Least time between two redrawings of the bar."""
NOTEBOOK_SECONDS = 1.0
"""Least time between two updates of a notebook's line."""


class Status(NamedTuple):
    """What is known after a step.

    Attributes:
        step: steps done. steps: steps in all.
        ess: effective sample size, the mean over groups. particles: N.
        best: largest value seen in the last step.
        seconds: elapsed. seconds_left: expected.
    """

    step: int
    steps: int
    ess: float
    particles: int
    best: float
    seconds: float
    seconds_left: float


class Progress(Protocol):
    """Anything that takes a `Status` after each step and is closed at the end."""

    def due(self, step: int, steps: int) -> bool:
        """Whether a status would be shown now; if not, there is no need to find out what it is."""

    def __call__(self, status: Status) -> None:
        """Show the status, if it is due."""

    def close(self) -> None:
        """End the display."""


def describe(status: Status) -> str:
    """Return the status as one plain line."""
    best = "" if status.best == float("-inf") else f" · best {status.best:.4g}"
    return (
        f"step {status.step}/{status.steps} · ESS {status.ess:.0f}/{status.particles}{best} · "
        f"{status.seconds:.0f} s, {status.seconds_left:.0f} s left"
    )


class _Silent:
    def due(self, step: int, steps: int) -> bool:
        return False

    def __call__(self, status: Status) -> None:
        pass

    def close(self) -> None:
        pass


class _Callable(_Silent):
    def __init__(self, fn: Callable[[Status], object]) -> None:
        self._fn = fn

    def due(self, step: int, steps: int) -> bool:
        return True

    def __call__(self, status: Status) -> None:
        self._fn(status)


class _Timed(_Silent):
    """Shows a status when ``interval`` seconds have passed since the last, and, if ``ends``, after the last step."""

    def __init__(self, interval: float, *, ends: bool, last: float = 0.0) -> None:
        self._interval, self._ends, self._last = interval, ends, last

    def due(self, step: int, steps: int) -> bool:
        return (self._ends and step == steps) or time.monotonic() - self._last >= self._interval

    def __call__(self, status: Status) -> None:
        if self.due(status.step, status.steps):
            self._last = time.monotonic()
            self._draw(status)

    def _draw(self, status: Status) -> None:
        raise NotImplementedError


class _Log(_Timed):
    def __init__(self, stream: Any, label: str) -> None:
        super().__init__(LOG_SECONDS, ends=False, last=time.monotonic())
        self._stream, self._label = stream, label

    def _draw(self, status: Status) -> None:
        print(f"{self._label}: {describe(status)}", file=self._stream, flush=True)


class _Terminal(_Timed):
    def __init__(self, stream: Any, label: str) -> None:
        super().__init__(TERMINAL_SECONDS, ends=True)
        self._stream, self._label, self._width = stream, label, 0

    def _draw(self, status: Status) -> None:
        filled = 20 * status.step // status.steps
        line = f"{self._label} {'━' * filled}{'─' * (20 - filled)} {describe(status)}"
        self._stream.write("\r" + line.ljust(self._width))
        self._stream.flush()
        self._width = len(line)

    def close(self) -> None:
        if self._width:
            self._stream.write("\n")
            self._stream.flush()


class _Notebook(_Timed):
    def __init__(self, label: str) -> None:
        from IPython.display import display  # a notebook has it

        super().__init__(NOTEBOOK_SECONDS, ends=True)
        self._label = label
        self._handle = display({"text/plain": label}, raw=True, display_id=True)

    def _draw(self, status: Status) -> None:
        self._handle.update({"text/plain": f"{self._label}: {describe(status)}"}, raw=True)


def make_progress(progress: bool | Callable[[Status], object], label: str = "fastguide") -> Progress:
    """Return the display behind the ``progress`` argument: True chooses by where the output goes, False shows nothing."""
    if callable(progress):
        return _Callable(progress)
    if not isinstance(progress, bool):
        raise TypeError(f"progress: expected True, False or a callable, got {type(progress).__name__}")
    if not progress:
        return _Silent()
    if "ipykernel" in sys.modules:
        return _Notebook(label)
    stream = sys.stderr
    return _Terminal(stream, label) if stream is not None and stream.isatty() else _Log(stream, label)
