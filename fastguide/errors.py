"""The exceptions of fastguide that are not a plain ``ValueError`` or ``TypeError``."""

from __future__ import annotations

from typing import Any


class DegenerateWeights(RuntimeError):  # noqa: N818 - named for the state of the weights, as in the documentation
    """Every weight of a group is zero, so nothing can be drawn from it.

    Attributes:
        groups: the indices of the groups concerned.
        result: the `fastguide.Result` with what the other groups gave, or None (a single kernel call).
    """

    def __init__(self, message: str, groups: tuple[int, ...] = (), result: Any = None) -> None:
        super().__init__(message)
        self.groups = groups
        self.result = result


class RewardError(RuntimeError):
    """A reward raised, returned NaN or +inf, or returned a tensor of the wrong shape.

    Attributes:
        sample: the first clean sample concerned, as the reward saw it, or None.
    """

    def __init__(self, message: str, sample: object = None) -> None:
        super().__init__(message)
        self.sample = sample


class BackendUnavailable(RuntimeError):  # noqa: N818 - it states a condition
    """A backend or an optional package is missing; the message says how to get it."""
