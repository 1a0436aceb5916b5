"""A seeded share of the slow tests, for runs that have no time for all: ``--slow-share 0.3 --slow-seed 1``.

A test marked ``slow(always=True)`` is in every share.
"""

from __future__ import annotations

import hashlib
import time

import pytest

_START = pytest.StashKey[float]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("slow tests")
    group.addoption("--slow-share", type=float, default=1.0, help="the share of the slow tests to run, 0 to 1")
    group.addoption("--slow-seed", type=int, default=0, help="which of them")
    group.addoption("--slow-minutes", type=float, default=1e9, help="skip those that would start later than this")


def _is_optional(item: pytest.Item) -> bool:
    mark = item.get_closest_marker("slow")
    return mark is not None and not mark.kwargs.get("always", False)


def _place(item: pytest.Item, seed: int) -> float:
    """Return a number in [0, 1) that depends on the name of the test and the seed alone."""
    digest = hashlib.sha256(f"{seed} {item.nodeid}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    share, seed = config.getoption("--slow-share"), config.getoption("--slow-seed")
    left_out = [item for item in items if _is_optional(item) and _place(item, seed) >= share]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not _is_optional(item) or _place(item, seed) < share]
    config.stash[_START] = time.monotonic()


def pytest_runtest_setup(item: pytest.Item) -> None:
    minutes = item.config.getoption("--slow-minutes")
    if _is_optional(item) and time.monotonic() - item.config.stash[_START] > 60 * minutes:
        pytest.skip(f"the {minutes:g} minutes of --slow-minutes are over")
