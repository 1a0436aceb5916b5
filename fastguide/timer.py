"""Where the time of a run goes."""

from __future__ import annotations

import time


class Timer:
    """Wall time by activity since the last lap; what no block claims is the sampler's."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}
        self._start = time.perf_counter()
        self._name, self._entered = "", 0.0

    def __call__(self, name: str) -> Timer:
        """Return the block, for a ``with`` statement, whose time goes to ``name``."""
        self._name = name
        return self

    def __enter__(self) -> None:
        self._entered = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._spent[self._name] = self._spent.get(self._name, 0.0) + time.perf_counter() - self._entered

    def lap(self) -> dict[str, float]:
        """Return the seconds of each activity since the last lap, and start the next."""
        now = time.perf_counter()
        claimed = sum(v for k, v in self._spent.items() if k != "sampler")
        spent = {**self._spent, "sampler": now - self._start - claimed}
        self._spent, self._start = {}, now
        return spent
