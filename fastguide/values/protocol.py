"""What a look-ahead estimator of the soft value ``v_t(x_t) = alpha · log E[exp(r(x0) / alpha) | x_t]`` is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fastguide.deferred import deferring
from fastguide.states import States


@runtime_checkable
class Value(Protocol):
    """A value in two parts: what is read off a micro-batch of states, and what becomes of it when all have been read.

    A value is a function of the state: equal states have equal values, whatever else stands in the batch, so that states can
    be merged and micro-batches cut anywhere. One that draws takes its randomness from the state (`fastguide.values.draws`).

    Attributes:
        reads_output: whether `look` reads the denoiser's output; if not, it may be called where no output is at hand.
    """

    @property
    def reads_output(self) -> bool:
        """See above."""

    def look(self, states: States) -> Tensor:
        """Return ``[u, …]``, one row a state of the micro-batch."""

    def values(self, looked: Tensor, rewards: Callable[[Tensor], Tensor], alpha: float) -> Tensor:
        """Return float64 ``[U]`` values.

        Args:
            looked: ``[U, …]`` what `look` returned, of all distinct states of the step.
            rewards: maps clean samples ``[U, *shape]`` or ``[U, m, *shape]`` to float64 ``[U]`` or ``[U, m]``.
            alpha: temperature.
        """


def mend_broken(values: Tensor, previous: Tensor | None) -> Tensor:
    """Replace values of −inf on the way by finite ones.

    A look-ahead of −inf says that x̂0 breaks a hard constraint, not that x_t cannot be completed: it counts as the lowest finite
    value of its group at this step, or, where there is none, as the parent's value (0 at the start). Any finite number keeps
    SMC exact; the constraint itself acts through the last weight, which is the reward.

    Args:
        values: ``[G, R]`` float64, R children a group.
        previous: ``[G, R]`` values of the parents, None at the first state.
    """
    broken = values == -torch.inf
    if not deferring() and not bool(broken.any()):
        return values
    lowest = torch.where(broken, torch.inf, values).amin(dim=1, keepdim=True)
    fallback = torch.zeros_like(values) if previous is None else previous
    return torch.where(broken, torch.where(lowest == torch.inf, fallback, lowest.expand_as(values)), values)
