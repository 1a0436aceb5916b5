"""Checks that are read at once, or together at the end.

A check whose answer the host reads makes it wait until the device has come so far. On the CPU that costs nothing, and a check
raises where it stands. Inside `deferred` the answers stay on the device, nothing has a shape that depends on data, and the host
reads them once, when the block ends: the first check that failed raises then, as it would have, later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

import torch
from torch import Tensor

Report = Callable[[int, float], Exception]
"""Makes the error of the first element that fails, from its flat index and its value."""


class _Check(NamedTuple):
    failed: Tensor
    first: Tensor
    value: Tensor
    report: Report


_pending: ContextVar[list[_Check] | None] = ContextVar("fastguide_pending_checks", default=None)


def deferring() -> bool:
    """Whether the host reads nothing at this moment."""
    return _pending.get() is not None


@contextmanager
def deferred() -> Iterator[None]:
    """Put off the checks of the block until its end. A block inside another ends nothing; one that raises reads nothing."""
    if deferring():
        yield
        return
    checks: list[_Check] = []
    token = _pending.set(checks)
    try:
        yield
    finally:
        _pending.reset(token)
    if not checks:
        return
    failed = torch.stack([check.failed for check in checks]).cpu()
    if bool(failed.any()):
        check = checks[int(failed.to(torch.uint8).argmax())]
        raise check.report(int(check.first), float(check.value))


def require(fits: Tensor, values: Tensor, report: Report) -> None:
    """Raise what ``report`` makes unless every element of ``fits`` is true.

    Args:
        fits: bool, of any shape with at least one element.
        values: of the same shape; the error names one of them.
        report: makes the error.
    """
    checks = _pending.get()
    if checks is None and bool(fits.all()):
        return
    first = fits.reshape(-1).to(torch.uint8).argmin()
    value = values.detach().reshape(-1).index_select(0, first[None])[0]
    if checks is None:
        raise report(int(first), float(value))
    checks.append(_Check(~fits.all(), first, value, report))
