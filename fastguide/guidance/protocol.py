"""What a guidance algorithm is: settings, queryable properties, and one step from state to state."""

from __future__ import annotations

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor

from fastguide.reference.philox import Stream, philox
from fastguide.strength import AutoAlpha, resolve_alpha

if TYPE_CHECKING:
    from fastguide.result import Result
    from fastguide.run import Run
    from fastguide.states import Scene, States

UNBIASED_RULES = ("systematic", "stratified", "multinomial", "residual")


class State(NamedTuple):
    """What steering knows of G groups of N particles between two steps. All tensors are float64 unless said.

    Attributes:
        log_weights: ``[G, N]`` unnormalised, since the last resampling.
        values: ``[G, N]`` value of each particle, the very number that stood in its last weight.
        log_z: ``[G]`` log of the normaliser accumulated at the resamplings.
        ess: ``[G]`` effective sample size of the last weights.
        resampled: ``[G]`` bool, whether the last step resampled.
        step: steps taken.
        carried: what else an algorithm carries from step to step; only its own `Guidance.step` reads it.
    """

    log_weights: Tensor
    values: Tensor
    log_z: Tensor
    ess: Tensor
    resampled: Tensor
    step: int = 0
    carried: tuple[Tensor, ...] = ()


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
    def value_steps(self) -> Collection[int] | None:
        """The steps at which values are read, 0 the noise; None means all. At others none is computed.

        The value of the last step is the reward, always.
        """

    def begin(self, values: Tensor) -> State:
        """Return the state of particles at t = 1 whose values ``[G, N]`` are given (where they are not read: any)."""

    def step(
        self, state: State, values: Tensor, *, seeds: Tensor, log_ratio: Tensor | None = None, final: bool = False
    ) -> tuple[State, Tensor]:
        """Weigh the children by ``values`` ``[G, N, M]`` (the rewards when ``final``; any where not read); select N a group.

        Returns the next state and the selected children ``[G, N]`` int64: the number ``n·M + m`` within the group of the child
        that each slot goes on with.
        """


class Proposal(Protocol):
    """How proposals are guided.

    Attributes:
        corrected: whether the weights take ``log p/q`` of the children; without it the samples are those of q.
    """

    @property
    def corrected(self) -> bool:
        """See above."""

    def rows(self, scene: Scene) -> tuple[int, int]:
        """Return how many rows of the denoiser and of the reward the shift of a state costs at most."""

    def shift(self, states: States) -> Tensor:
        """Return float32 what is added in each state: ``[U, L, V]`` to log-probabilities, ``[U, *shape]`` to the mean."""


@runtime_checkable
class Driver(Protocol):
    """Guidance that runs the loop itself, more than once: a method `drive` beside those of `Guidance`."""

    def drive(self, run: Run) -> Result:
        """Return the result of ``run``, whose guidance this is."""


def guidance_at(guidance: Guidance, step: int) -> Guidance:
    """Return the guidance that takes step ``step``: what ``guidance.at(step)`` says where there is such a method."""
    at = getattr(guidance, "at", None)
    return guidance if at is None else at(step)


def phase_at(guidance: Guidance, step: int) -> int:
    """Return what ``guidance.phase(step)`` says where there is such a method; 0 where all steps are of one phase."""
    phase = getattr(guidance, "phase", None)
    return 0 if phase is None else phase(step)


def proposal_of(guidance: Guidance) -> Proposal | None:
    """Return the guided proposal of guidance that has an attribute ``proposal``; None means the pretrained model's own."""
    return getattr(guidance, "proposal", None)


def reads_values(guidance: Guidance, step: int) -> bool:
    """Whether the values of the states after ``step`` steps are read."""
    return guidance.value_steps is None or step in guidance.value_steps


def seeds_of_pass(seeds: Tensor, number: int) -> Tensor:
    """Return ``[G]`` seeds of a pass of the loop: of each group's own and its number, so that a group alone gives the same."""
    low, high, _, _ = philox(seeds, 0, 0, number, int(Stream.USER))
    return low | (high >> 1) << 32


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


def is_number(x: object) -> TypeGuard[float]:
    """Whether ``x`` is a finite real number; True and False are none."""
    return not isinstance(x, bool) and isinstance(x, Real) and math.isfinite(x)


def check_alpha(alpha: object, *, positive: bool) -> float:
    """Return a temperature as a float; refuse what is not a number, negative, or zero where a weight is needed.

    ``"auto"`` and `AutoAlpha` stay until `fastguide.sample` has found the number.
    """
    alpha = resolve_alpha(alpha)
    if isinstance(alpha, AutoAlpha):
        return alpha
    if not is_number(alpha) or alpha < 0:
        raise ValueError(f"alpha: expected a finite number of at least 0, got {alpha!r}")
    if positive and alpha == 0:
        raise ValueError(
            "alpha: 0 leaves no weights to resample by; give alpha > 0, or use Beam() or SVDD(alpha=0) for the argmax"
        )
    return float(alpha)


def check_branch(branch: object, *, least: int) -> int:
    """Return a number of children as an int; refuse one below ``least``."""
    if isinstance(branch, bool) or not isinstance(branch, Integral) or branch < least:
        raise ValueError(f"branch: expected a whole number of at least {least}, got {branch!r}")
    return int(branch)


def check_resampling(ess_threshold: object, rule: str, who: str) -> float:
    """Return the threshold as a float; refuse one outside [0, 1], and a rule of selection that is unknown or biased."""
    if not is_number(ess_threshold) or not 0.0 <= ess_threshold <= 1.0:
        raise ValueError(f"ess_threshold: expected a fraction in [0, 1], got {ess_threshold!r}")
    if rule not in UNBIASED_RULES:
        raise ValueError(f"rule: {who} needs an unbiased rule, one of {', '.join(UNBIASED_RULES)}; got {rule!r}")
    return float(ess_threshold)


def check_steps(name: str, steps: Collection[int] | None) -> Collection[int] | None:
    """Return steps as a range, or as increasing whole numbers; refuse what is neither."""
    if steps is None or (isinstance(steps, range) and (not steps or min(steps[0], steps[-1]) >= 0)):
        return steps
    listed = list(steps) if isinstance(steps, Collection) else [-1]
    if not all(is_number(s) and s == int(s) and s >= 0 for s in listed):
        raise ValueError(
            f"{name}: expected whole numbers of at least 0, such as range(10, 50, 5), or None for all; got {steps!r}"
        )
    return tuple(sorted({int(s) for s in listed}))
