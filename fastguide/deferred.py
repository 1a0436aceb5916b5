"""Checks that are read at once, or together at the end.

A check whose answer the host reads makes it wait until the device has come so far. On the CPU that costs nothing, and a check
raises where it stands. Inside `deferred` the answers stay on the device, nothing has a shape that depends on data, and the host
reads them once, when the block ends: the first check that failed raises then, as it would have, later. What comes after an
error holds anything; nothing is read or written out of bounds for it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor

Report = Callable[[int, float], Exception]
"""Makes the error of the first element that fails, from its flat index and its value."""
ReadWords = Callable[[Tensor], Exception | None]
"""Reads the status words that kernels have lowered, and returns the error they tell of, if any."""


class _Check(NamedTuple):
    failed: Tensor
    first: Tensor
    value: Tensor
    report: Report


class Deferred:
    """Checks that wait to be read."""

    def __init__(self) -> None:
        self._checks: list[_Check] = []
        self._words: dict[Hashable, tuple[Tensor, ReadWords]] = {}

    def add(self, fits: Tensor, first: Tensor, value: Tensor, report: Report) -> None:
        """Take up a check of elements; see `require`."""
        self._checks.append(_Check(~fits.all(), first, value, report))

    def words(self, key: Hashable, make: Callable[[], Tensor], read: ReadWords) -> Tensor:
        """Return the status words of ``key``, which all its kernels lower, made by ``make`` where there are none yet."""
        if key not in self._words:
            self._words[key] = make(), read
        return self._words[key][0]

    def __len__(self) -> int:
        return len(self._checks)

    def sticky(self, since: int) -> Sticky:
        """Return the memory of checks that will be made again and again, as those from number ``since`` on were."""
        found = Sticky(self._checks[since:])
        self._checks += found.checks
        return found

    def take(self, since: int) -> list[_Check]:
        """Remove the checks from number ``since`` on."""
        taken, self._checks = self._checks[since:], self._checks[:since]
        return taken

    def check(self) -> None:
        """Read all, which waits for the device, and raise for the first that failed."""
        if self._checks:
            # Some may be of main memory: those of rewards that run there.
            device = max((check.failed.device for check in self._checks), key=lambda device: device.type != "cpu")
            failed = torch.stack([check.failed.to(device) for check in self._checks]).cpu()
            if bool(failed.any()):
                check = self._checks[int(failed.to(torch.uint8).argmax())]
                raise check.report(int(check.first), float(check.value))
        for words, read in self._words.values():
            error = read(words)
            if error is not None:
                raise error


class Sticky:
    """What checks that are made in every replay of a graph found in the first that failed.

    Attributes:
        checks: tensors that stay where they are, to be read at the end.
    """

    def __init__(self, like: list[_Check]) -> None:
        self.checks: list[_Check] = []
        if like:
            device = like[0].failed.device
            self._failed = torch.zeros(len(like), dtype=torch.bool, device=device)
            self._first = torch.zeros(len(like), dtype=torch.int64, device=device)
            self._value = torch.zeros(len(like), dtype=torch.float64, device=device)
            tensors = zip(self._failed, self._first, self._value, like, strict=True)
            self.checks = [_Check(failed, first, value, check.report) for failed, first, value, check in tensors]

    def fold(self, found: list[_Check]) -> None:
        """Remember what the same checks found now."""
        assert len(found) == len(self.checks)
        if not found:
            return
        failed = torch.stack([check.failed for check in found])
        fresh = failed & ~self._failed
        first, value = (torch.stack([getattr(check, name) for check in found]) for name in ("first", "value"))
        torch.where(fresh, first, self._first, out=self._first)
        torch.where(fresh, value.double(), self._value, out=self._value)
        self._failed |= failed


_pending: ContextVar[Deferred | None] = ContextVar("fastguide_deferred", default=None)


def pending() -> Deferred | None:
    """Return the checks that are put off at this moment, None where they are read at once."""
    return _pending.get()


def deferring() -> bool:
    """Whether the host reads nothing at this moment."""
    return _pending.get() is not None


@contextmanager
def deferred(into: Deferred | None = None) -> Iterator[Deferred]:
    """Put off the checks of the block until its end. A block inside another ends nothing; one that raises reads nothing.

    Args:
        into: checks to add to, which the caller reads, as when a captured graph is replayed.
    """
    outer = _pending.get()
    if outer is not None and into is None:
        yield outer
        return
    checks = Deferred() if into is None else into
    token = _pending.set(checks)
    try:
        yield checks
    finally:
        _pending.reset(token)
    if into is None:
        checks.check()


def require(fits: Tensor, values: Tensor, report: Report) -> None:
    """Raise what ``report`` makes unless every element of ``fits`` is true.

    Args:
        fits: bool, of any shape with at least one element.
        values: of the same shape; the error names one of them.
        report: makes the error.
    """
    later = pending()
    if later is None and bool(fits.all()):
        return
    first = fits.reshape(-1).to(torch.uint8).argmin()
    value = values.detach().reshape(-1).index_select(0, first[None])[0]
    if later is None:
        raise report(int(first), float(value))
    later.add(fits, first, value, report)
