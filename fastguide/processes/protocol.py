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
class Renoising(Protocol):
    """A `Bound` that can take clean samples back to a noise level."""

    def is_whole(self, x: Tensor, *, group: Tensor) -> bool:
        """Whether states ``[U, *shape]`` are clean samples."""

    def renoise(self, x0: Tensor, *, step: int, seeds: Tensor) -> Tensor:
        """Return clean samples ``[G·N, *shape]`` noised to the level after ``step`` steps, what is given in place."""


@runtime_checkable
class Finishing(Protocol):
    """A `Bound` whose states may be finished before the last step: then nothing is drawn in them, and no output is read."""

    def finished(self, x: Tensor) -> Tensor:
        """Return bool ``[U]``: which of the states ``[U, *shape]`` are."""

    def unread(self, n: int) -> Tensor:
        """Return what stands for the output of ``n`` finished states where the denoiser is not asked for any."""


@runtime_checkable
class Correcting(Protocol):
    """A `Bound` whose target is not the law that its steps are drawn from: each child has a log-weight."""

    def log_correction(
        self, children: Tensor, x: Tensor, output: Tensor, *, step: int, group: Tensor, ancestors: Tensor
    ) -> Tensor:
        """Return ``[P, M]`` float64, what the log-weights of children take besides ``log p/q``."""


@runtime_checkable
class Process(Protocol):
    """The mathematics of a diffusion.

    A process whose steps read earlier predictions has a method ``wrap(denoiser) -> Denoiser`` besides: what the run calls.
    """

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


def of_groups(numbers: Tensor | None, group: Tensor) -> Tensor | None:
    """Return the numbers ``[G]`` of groups, such as lengths, for rows of groups ``group``; None stays None."""
    return None if numbers is None else numbers[group]


def within(lengths: Tensor, length: int) -> Tensor:
    """Return bool ``[n, L]``: which positions of rows with these lengths ``[n]`` are no padding."""
    return torch.arange(length, device=lengths.device) < lengths[:, None]


def expand_init(x_init: Tensor | None, groups: int, particles: int, dims: int = 1) -> Tensor | None:
    """Repeat states ``[N, *shape]`` of one group (``shape`` of so many dims) for all G; others are left as they are."""
    if isinstance(x_init, Tensor) and x_init.ndim == dims + 1 and len(x_init) == particles and groups > 1:
        return x_init.repeat(groups, *(1,) * dims)
    return x_init


def initial_tokens(x_init: Tensor | None, n: int, length: int, free: int, device: torch.device | str) -> Tensor:
    """Return ``[n, L]`` int64 tokens: ``free``, the id of a position that is not given, except where ``x_init`` has tokens."""
    if x_init is None:
        return torch.full((n, length), free, dtype=torch.int64, device=device)
    if not isinstance(x_init, Tensor) or x_init.dtype != torch.int64:
        kind = x_init.dtype if isinstance(x_init, Tensor) else type(x_init).__name__
        raise TypeError(f"x_init: expected an int64 tensor of tokens, the mask id {free} where free; got {kind}")
    if x_init.shape not in ((length,), (n, length)):
        raise ValueError(f"x_init: expected shape [{length}] or [{n}, {length}], got {list(x_init.shape)}")
    if x_init.numel() and (int(x_init.min()) < 0 or int(x_init.max()) > free):
        raise ValueError(f"x_init: tokens must lie in 0..{free} ({free} is the mask)")
    return x_init.to(device).expand(n, length).clone()


def given_tokens(constraints: Constraints, groups: int, particles: int, length: int, free: int) -> Tensor | None:
    """Return ``x_init`` for all groups, with ``free`` at the positions that are not ``frozen``, where these are named."""
    x_init, frozen = expand_init(constraints.x_init, groups, particles), constraints.frozen
    if frozen is None:
        return x_init
    if x_init is None:
        raise ValueError("frozen: give the tokens to keep in x_init")
    check_frozen(frozen, (length,))
    return torch.where(frozen, x_init, free)


def check_frozen(frozen: Tensor, shape: tuple[int, ...]) -> None:
    """Raise unless ``frozen`` is bool, of the shape of a state."""
    if not isinstance(frozen, Tensor) or frozen.dtype != torch.bool or frozen.shape != shape:
        got = f"{frozen.dtype} {list(frozen.shape)}" if isinstance(frozen, Tensor) else type(frozen).__name__
        raise ValueError(f"frozen: expected a bool tensor of shape {list(shape)}, got {got}")


def check_bias(bias: Tensor | None, length: int, vocab: int, device: torch.device) -> Tensor | None:
    """Return a bias as float32, None where there is none."""
    if bias is None:
        return None
    shapes = ((vocab,), (length, vocab))
    if not isinstance(bias, Tensor) or bias.shape not in shapes:
        got = list(bias.shape) if isinstance(bias, Tensor) else type(bias).__name__
        raise ValueError(f"bias: expected a tensor of shape {list(shapes[0])} or {list(shapes[1])}, got {got}")
    return bias.to(device, torch.float32)


def check_logits(logits: Tensor, shape: tuple[int, int, int]) -> None:
    """Raise unless a denoiser returned floating logits of this shape ``(n, L, V)``."""
    if logits.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(
            f"denoiser: expected logits of dtype float32, float16 or bfloat16, got {logits.dtype}; return logits.float()"
        )
    if logits.shape != shape:
        raise ValueError(
            f"denoiser: expected logits of shape {list(shape)} ([states, length, vocab]), got {list(logits.shape)}; the "
            "mask has no logit column"
        )
