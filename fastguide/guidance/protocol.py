"""What a guidance algorithm is: settings, queryable properties, and one step from state to state."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


class State(NamedTuple):
    """What steering knows of G groups of N particles between two steps. All tensors are float64 unless said.

    Attributes:
        log_weights: ``[G, N]`` unnormalised, since the last resampling.
        values: ``[G, N]`` value of each particle, the very number that stood in its last weight.
        log_z: ``[G]`` log of the normaliser accumulated at the resamplings.
        ess: ``[G]`` effective sample size of the last weights.
        resampled: ``[G]`` bool, whether the last step resampled.
        step: steps taken.
    """

    log_weights: Tensor
    values: Tensor
    log_z: Tensor
    ess: Tensor
    resampled: Tensor
    step: int = 0


@runtime_checkable
class Guidance(Protocol):
    """The protocol of a guidance algorithm; implementations are frozen dataclasses."""

    @property
    def alpha(self) -> float:
        """Temperature of the tilt ``exp(r / alpha)``."""

    @property
    def branch(self) -> int:
        """Children M proposed per particle."""

    @property
    def consistent(self) -> bool:
        """Whether the weighted samples converge to the target as N grows."""

    @property
    def estimates_normalizer(self) -> bool:
        """Whether the weights estimate ``E_p[exp(r / alpha)]``."""

    @property
    def uses_values(self) -> bool:
        """Whether intermediate values are read; if not, none is computed."""

    def begin(self, values: Tensor) -> State:
        """Return the state of particles at t = 1 whose values ``[G, N]`` are given."""

    def step(
        self, state: State, values: Tensor, *, seeds: Tensor, log_ratio: Tensor | None = None, final: bool = False
    ) -> tuple[State, Tensor]:
        """Weigh the children by ``values`` ``[G, N, M]`` (the rewards when ``final``) and select N a group.

        Returns the next state and the selected children ``[G, N]`` int64: the number ``n·M + m`` within the group of the child
        that each slot goes on with.
        """


def start(values: Tensor, log_weights: Tensor) -> State:
    """Return the first `State`, with nothing selected yet."""
    groups, n = values.shape
    return State(
        log_weights=log_weights,
        values=values,
        log_z=values.new_zeros(groups),
        ess=values.new_full((groups,), float(n)),
        resampled=torch.zeros(groups, dtype=torch.bool, device=values.device),
    )


def check_alpha(alpha: object, *, positive: bool) -> float:
    """Return a temperature as a float; refuse what is not a number, negative, or zero where a weight is needed."""
    if isinstance(alpha, bool) or not isinstance(alpha, Real) or not math.isfinite(alpha) or alpha < 0:
        raise ValueError(f"alpha: expected a finite number of at least 0, got {alpha!r}")
    if positive and alpha == 0:
        raise ValueError(
            "alpha: 0 leaves no weights to resample by; give alpha > 0, or use SVDD(alpha=0) for the argmax"
        )
    return float(alpha)


def check_branch(branch: object, *, least: int) -> int:
    """Return a number of children as an int; refuse one below ``least``."""
    if isinstance(branch, bool) or not isinstance(branch, Integral) or branch < least:
        raise ValueError(f"branch: expected a whole number of at least {least}, got {branch!r}")
    return int(branch)
