"""What a process is: noise levels, and how states are drawn and read. It knows no network and no guidance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor


class Constraints(NamedTuple):
    """What the caller of `fastguide.sample` fixes in advance; a process refuses what it cannot honour.

    Attributes:
        x_init: states to start from, ``[*shape]``, ``[N, *shape]`` or ``[G·N, *shape]``.
        frozen: bool, of the shape of a state: the parts of ``x_init`` that are given.
        bias: float32 ``[V]`` or ``[L, V]``, added to the logits of every draw.
        lengths: positions of each group.
        known_lengths: what `Denoiser.length_of` says of each group; None where the process alone decides.
    """

    x_init: Tensor | None = None
    frozen: Tensor | None = None
    bias: Tensor | None = None
    lengths: Sequence[int] | None = None
    known_lengths: Sequence[int | None] = ()


class Bound(Protocol):
    """A process bound to the groups of one run. In every method ``group`` int64 says which group a row belongs to.

    Attributes:
        x: ``[G·N, *shape]`` states at t = 1.
        lengths: ``[G]`` int64 positions of each group, None where all are whole.
        output_bytes: bytes of one row of what the denoiser returns.
    """

    x: Tensor
    lengths: Tensor | None
    output_bytes: int

    def check(self, output: Tensor, n: int) -> None:
        """Raise unless ``output`` is what a denoiser returns for ``n`` states."""

    def estimate(self, x: Tensor, output: Tensor, *, step: int, group: Tensor) -> Tensor:
        """Return the clean sample ``[U, *shape]`` that the denoiser's output predicts for states after ``step`` steps."""

    def propose(
        self,
        x: Tensor,
        output: Tensor,
        *,
        step: int,
        group: Tensor,
        seed: Tensor,
        ancestors: Tensor,
        branch: int = 1,
        slots: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> Tensor:
        """Draw the children ``[P, M, *shape]`` of step ``step``.

        Args:
            x: ``[U, *shape]`` states. output: what the denoiser said of them.
            step: steps taken so far.
            group: ``[S]``, S dividing P; particles are contiguous by it.
            seed: ``[S]`` int64.
            ancestors: ``[P]`` the row of ``x`` that each particle stands in.
            branch: children M.
            slots: ``[P]`` int64 numbers of the particles within their group; None counts them off.
            shift: ``[U, …]`` float32, what guided proposals add to the log-probabilities or to the mean.
        """

    def log_ratio(
        self, children: Tensor, x: Tensor, output: Tensor, shift: Tensor, *, step: int, group: Tensor, ancestors: Tensor
    ) -> Tensor:
        """Return ``[P, M]`` float64 ``log p/q`` of children that were proposed with ``shift``."""


@runtime_checkable
class Process(Protocol):
    """The mathematics of a diffusion."""

    @property
    def steps(self) -> int:
        """Reverse steps T."""

    @property
    def times(self) -> tuple[float, ...]:
        """The ``T + 1`` noise levels that the denoiser is told, from noise to data."""

    def bind(
        self, constraints: Constraints, *, groups: int, particles: int, seeds: Tensor, device: torch.device
    ) -> Bound:
        """Return the process under constraints, with the states of G groups of N particles at t = 1."""


def refuse(process: object, constraints: Constraints, *names: str) -> None:
    """Raise for constraints that a process has no use for."""
    for name in names:
        if getattr(constraints, name) is not None:
            raise ValueError(f"{name}: {type(process).__name__} has no use for it; leave it out")


def resolve_lengths(constraints: Constraints, longest: int, groups: int, device: torch.device) -> Tensor | None:
    """Return ``[G]`` int64 positions of each group, None where all have ``longest``."""
    lengths: Any = constraints.lengths
    if lengths is None:
        lengths = [longest if length is None else length for length in constraints.known_lengths or [None] * groups]
        if max(lengths) != longest:
            raise ValueError(f"process: length {longest}, but the denoiser has {max(lengths)} positions")
    checked = torch.as_tensor(lengths, device=device)
    whole = not (checked.is_floating_point() or checked.is_complex())
    if not whole or checked.shape != (groups,) or int(checked.min()) < 1 or int(checked.max()) > longest:
        raise ValueError(f"lengths: expected {groups} whole numbers in 1..{longest}, got {lengths}")
    checked = checked.to(torch.int64)
    return None if bool((checked == longest).all()) else checked


def expand_init(x_init: Tensor | None, groups: int, particles: int, dims: int = 1) -> Tensor | None:
    """Repeat states ``[N, *shape]`` of one group (``shape`` of so many dims) for all G; others are left as they are."""
    if isinstance(x_init, Tensor) and x_init.ndim == dims + 1 and len(x_init) == particles and groups > 1:
        return x_init.repeat(groups, *(1,) * dims)
    return x_init
