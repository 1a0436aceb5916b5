"""What a benchmark is made of: competitors that do one job on the same data, and figures to reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastguide.memory import available_bytes

OURS = "fastguide"


class WrongResultError(AssertionError):
    """A competitor's result is not what the job asks for."""


def require(holds: bool, message: str) -> None:
    """Raise `WrongResultError` unless ``holds``."""
    if not holds:
        raise WrongResultError(message)


@dataclass(frozen=True)
class Case:
    """One job at one size.

    Attributes:
        op: the kernel or workload.
        job: which of its jobs, ``"systematic"`` for example; cases of a job differ in size only.
        n: the size that grows, the horizontal axis of the plot.
        competitors: what to call, by name; `OURS` first. A call returns what ``check`` looks at.
        moved: bytes that any method must move: inputs read once, outputs written once. 0 where arithmetic is the bound.
        check: raises `WrongResultError` where the second argument cannot be the result of the first, a competitor.
        size: the other sizes and settings, for the record.
        absent: competitors that cannot run here, with the reason.
    """

    op: str
    job: str
    n: int
    competitors: Mapping[str, Callable[[], Any]]
    moved: int
    check: Callable[[str, Any], None]
    size: Mapping[str, Any] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)

    def only(self, names: Sequence[str]) -> Case:
        """Return the case with some of its competitors."""
        kept = {name: call for name, call in self.competitors.items() if name in names}
        return Case(self.op, self.job, self.n, kept, self.moved, self.check, self.size, self.absent)


@dataclass(frozen=True)
class Bar:
    """A ratio that has to be reached.

    Attributes:
        what: the job and its size, in words; bars of the same words share their case.
        case: builds the case, when it is its turn.
        ours: the competitors of ours of which the best counts.
        against: in words, what they are measured against.
        peers: the competitors of which the best counts; those that are absent are named in the result.
        bar: the ratio: theirs over ours at least, or with ``at_most`` ours over theirs at most.
    """

    what: str
    case: Callable[[], Case]
    against: str
    peers: tuple[str, ...]
    bar: float
    ours: tuple[str, ...] = (OURS,)
    at_most: bool = False


@dataclass(frozen=True)
class Sizes:
    """Which sizes to run.

    Attributes:
        given: sizes asked for by name, or None.
        effort: ``"quick"``, ``"normal"`` or ``"full"``.
    """

    given: tuple[int, ...] | None = None
    effort: str = "normal"

    def of(self, quick: Sequence[int], normal: Sequence[int], full: Sequence[int], bytes_each: int) -> Iterator[int]:
        """Yield the sizes of an op whose competitors hold about ``bytes_each`` bytes an item; too large ones are left out."""
        chosen = {"quick": quick, "normal": normal, "full": full}[self.effort] if self.given is None else self.given
        for n in chosen:
            if n * bytes_each < 0.8 * available_bytes():
                yield n
