"""The stopwatch: turns, spreads, and what it says of the machine."""

from __future__ import annotations

import time

import pytest

from fastguide.bench.timing import Times, alternate, copy_bandwidth, machine


def test_competitors_take_turns_in_alternating_direction() -> None:
    calls: list[str] = []
    alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=3, target=0.0)
    assert "".join(calls) == "aabb" + "ab" + "ba" + "ab"


def test_a_slow_competitor_takes_part_in_fewer_rounds_but_three() -> None:
    times = alternate({"fast": lambda: None, "slow": lambda: time.sleep(0.02)}, rounds=9, target=0.0, budget=0.01)
    assert len(times.seconds["fast"]) == 9
    assert len(times.seconds["slow"]) == 3


def test_ratios_are_of_medians_and_their_spread_of_rounds() -> None:
    times = Times({"a": {0: 2.0, 1: 4.0, 2: 9.0}, "b": {0: 1.0, 1: 1.0, 2: 3.0}})
    assert times.medians == {"a": 4.0, "b": 1.0}
    assert times.ratio("a", "b") == (4.0, 2.0, 4.0)
    assert times.spread("a") == (2.0, 9.0)


def test_the_copy_and_the_machine_are_measured() -> None:
    assert copy_bandwidth(rounds=3) > 1e8
    described = machine()
    assert described["threads"] >= 1
    assert {"cpu", "simd", "torch", "omp_proc_bind"} <= set(described)


def test_a_competitor_that_raises_is_not_timed() -> None:
    def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        alternate({"a": fails})
