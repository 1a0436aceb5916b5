"""A scheduler whose ``step`` somebody else takes for a while."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch import Tensor

Step = Callable[..., Any]
"""``step(model_output, timestep, sample, ...)`` of a scheduler: a tuple or an output object, the next sample first."""


class Hook:
    """Calls ``step(take, *arguments)`` for ``scheduler.step(*arguments)`` until `remove`, ``take`` being what was there."""

    def __init__(self, scheduler: Any, step: Step) -> None:
        take = scheduler.step

        # Pipelines read from the signature which arguments a scheduler takes; wraps keeps it.
        @functools.wraps(take)
        def hooked(*args: Any, **options: Any) -> Any:
            return step(take, *args, **options)

        self._scheduler, self._hooked = scheduler, hooked
        self._before = scheduler.__dict__.get("step")
        scheduler.step = hooked

    def remove(self) -> None:
        """Put back what was there, unless somebody else has put something over it."""
        if self._scheduler.__dict__.get("step") is not self._hooked:
            return
        if self._before is None:
            del self._scheduler.step
        else:
            self._scheduler.step = self._before


def with_sample(taken: Any, sample: Tensor) -> Any:
    """Return what a scheduler's step returned with another sample in it."""
    if isinstance(taken, tuple):
        return (sample, *taken[1:])
    taken.prev_sample = sample
    return taken
