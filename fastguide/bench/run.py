"""Check and time cases; a figure is only given for a result that is right."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from fastguide.bench.case import OURS, Bar, Case, WrongResultError
from fastguide.bench.timing import ROUNDS, Times, alternate


@dataclass(frozen=True)
class Outcome:
    """What one case gave.

    Attributes:
        case: the case, with the competitors that were timed.
        times: their times.
    """

    case: Case
    times: Times

    def rows(self, copy: float) -> list[dict[str, Any]]:
        """Return one record a competitor; ``copy`` is the measured bytes a second of a copy."""
        return [self._row(name, copy) for name in self.times.seconds]

    def _row(self, name: str, copy: float) -> dict[str, Any]:
        seconds = self.times.median(name)
        ratio = self.times.ratio(name, OURS) if OURS in self.times.seconds else None
        rate = self.case.moved / seconds
        return {
            "op": self.case.op,
            "job": self.case.job,
            "n": self.case.n,
            **self.case.size,
            "competitor": name,
            "seconds": seconds,
            "seconds_10_90": self.times.spread(name),
            "ratio": ratio and ratio.median,
            "ratio_10_90": ratio and (ratio.low, ratio.high),
            "rounds": len(self.times.seconds[name]),
            "bytes": self.case.moved or None,
            "gb_per_s": rate / 1e9 if self.case.moved else None,
            "of_copy": rate / copy if self.case.moved else None,
        }


def measure(case: Case, *, rounds: int = ROUNDS) -> Outcome:
    """Check each competitor's result, then time those whose result is right.

    A peer that fails or is wrong is left out and named in ``case.absent``.

    Raises:
        WrongResultError: ours is wrong.
    """
    absent = dict(case.absent)
    threads = torch.get_num_threads()
    good, first = {}, {}
    for name, call in case.competitors.items():
        begin = time.perf_counter()
        try:
            got = call()
            first[name] = time.perf_counter() - begin
            case.check(name, got)
        except (WrongResultError, RuntimeError) as error:
            if name.startswith(OURS):
                raise WrongResultError(f"{case.op}, {case.job}, N = {case.n}: {name}: {error}") from error
            absent[name] = f"{'wrong result' if isinstance(error, WrongResultError) else 'fails'}: {error}"
        else:
            good[name] = call
        got = None  # a large result is not held while others are timed
        if torch.get_num_threads() != threads:
            raise RuntimeError(f"{name}: left torch with {torch.get_num_threads()} threads instead of {threads}")
    return Outcome(replace(case, competitors=good, absent=absent), alternate(good, rounds=rounds, known=first))


def check_bars(bars: Sequence[Bar], copy: float, *, rounds: int = ROUNDS) -> list[dict[str, Any]]:
    """Measure the case that some bars share, and say which are met."""
    built = bars[0].case()
    wanted = {OURS, *(name for bar in bars for name in (*bar.ours, *bar.peers))}
    outcome = (
        measure(built.only(sorted(wanted)), rounds=rounds) if OURS in built.competitors else Outcome(built, Times({}))
    )
    return [_bar(bar, outcome, copy) for bar in bars]


def _bar(bar: Bar, outcome: Outcome, copy: float) -> dict[str, Any]:
    head: dict[str, Any] = {"what": bar.what, "against": bar.against, "bar": bar.bar, "at_most": bar.at_most}
    times, absent = outcome.times, outcome.case.absent
    ours, peers = ([name for name in names if name in times.seconds] for names in (bar.ours, bar.peers))
    if not ours or not peers:
        lacking = bar.peers if ours else bar.ours
        return {**head, "met": None, "why": "; ".join(f"{n}: {absent.get(n, 'absent')}" for n in lacking)}
    mine, theirs = min(ours, key=times.median), min(peers, key=times.median)
    ratio = times.ratio(mine, theirs) if bar.at_most else times.ratio(theirs, mine)
    rate = outcome.case.moved / times.median(mine)
    return {
        **head,
        "met": ratio.median <= bar.bar if bar.at_most else ratio.median >= bar.bar,
        "ratio": ratio.median,
        "ratio_10_90": (ratio.low, ratio.high),
        "ours": mine,
        "seconds": times.median(mine),
        "peer": theirs,
        "peer_seconds": times.median(theirs),
        "of_copy": rate / copy if outcome.case.moved else None,
        "absent": {name: why for name, why in absent.items() if name in bar.peers},
        "all_seconds": {name: times.median(name) for name in (*ours, *peers)},
    }
