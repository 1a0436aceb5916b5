"""Check and time cases; a figure is only given for a result that is right."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

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
    good = {}
    for name, call in case.competitors.items():
        try:
            case.check(name, call())
        except (WrongResultError, RuntimeError) as error:
            if name.startswith(OURS):
                raise WrongResultError(f"{case.op}, {case.job}, N = {case.n}: {name}: {error}") from error
            absent[name] = f"{'wrong result' if isinstance(error, WrongResultError) else 'fails'}: {error}"
        else:
            good[name] = call
    return Outcome(replace(case, competitors=good, absent=absent), alternate(good, rounds=rounds))


def check_bar(bar: Bar, copy: float, *, rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure what a bar is about and say whether it is met."""
    head: dict[str, Any] = {"what": bar.what, "against": bar.against, "bar": bar.bar, "at_most": bar.at_most}
    built = bar.case()
    ours = [name for name in bar.ours if name in built.competitors]
    if not ours:
        return {**head, "met": None, "why": "; ".join(built.absent.get(n, "not available") for n in bar.ours)}
    if not any(name in built.competitors for name in bar.peers):
        return {**head, "met": None, "why": "; ".join(built.absent.get(n, f"{n} is absent") for n in bar.peers)}
    outcome = measure(built.only([OURS, *ours, *bar.peers]), rounds=rounds)
    times = outcome.times
    peers = [name for name in bar.peers if name in times.seconds]
    if not peers:
        return {**head, "met": None, "why": "; ".join(f"{n}: {outcome.case.absent[n]}" for n in bar.peers)}
    mine, theirs = min(ours, key=times.median), min(peers, key=times.median)
    ratio = times.ratio(mine, theirs) if bar.at_most else times.ratio(theirs, mine)
    rate = built.moved / times.median(mine)
    return {
        **head,
        "met": ratio.median <= bar.bar if bar.at_most else ratio.median >= bar.bar,
        "ratio": ratio.median,
        "ratio_10_90": (ratio.low, ratio.high),
        "ours": mine,
        "seconds": times.median(mine),
        "peer": theirs,
        "peer_seconds": times.median(theirs),
        "of_copy": rate / copy if built.moved else None,
        "absent": {name: why for name, why in outcome.case.absent.items() if name in bar.peers},
        "all_seconds": times.medians,
    }
