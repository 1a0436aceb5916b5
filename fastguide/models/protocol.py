"""The denoiser protocol: what the loop asks of a pretrained model.

The short form is a callable ``denoiser(x, t) -> output``. The full form keeps a state per particle (ranks, decoder or
key/value caches): a pytree (nested dicts, lists, tuples) of tensors whose leading axis is the particle. The state that a call
returns belongs to the rows it was called with; their children continue it, each naming its parent's row in ``rows``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

State = Any


class Prediction(NamedTuple):
    """What a denoiser says of a batch of states.

    Attributes:
        output: what the network returns, as the process reads it. Tokens: logits ``[n, L, V]``, unnormalised
            log-probabilities of the clean token at each position (of a masked process only masked positions are read);
            float32, float16 or bfloat16; ``-inf`` forbids a token. Real states: ``[n, *shape]`` float32, in the
            parametrisation that the process names (noise, clean sample, v, score, velocity).
        state: the pytree that the children of these rows continue.
    """

    output: Tensor
    state: State = None


class Denoiser:
    """Base class of denoisers with a state; subclasses override ``__call__`` and what else they need.

    Attributes:
        batch_invariant: True promises that a row's output has the same bits in any batch. Others are called with one fixed
            number of rows, padded, so that micro-batches and merged states do not change results.
        differentiable: whether gradients flow from the logits to a soft one-hot ``x``.
    """

    batch_invariant: bool = False
    differentiable: bool = False

    def init(self, n: int, condition: Any = None) -> State:
        """Return the state of ``n`` particles that have seen nothing yet, under ``condition``."""
        return None

    def __call__(self, x: Tensor, t: Tensor, state: State = None, rows: Tensor | None = None) -> Prediction:
        """Predict the clean sample from states ``x``.

        Args:
            x: ``[n, L]`` int64 tokens (the mask id is the vocabulary size), or ``[n, *shape]`` float32.
            t: ``[n]`` float32 noise levels, 1 = noise, 0 = data.
            state: the pytree of the parents, as ``init`` or an earlier call returned it.
            rows: ``[n]`` int64, the row of ``state`` that each row of ``x`` continues; None means row by row.
        """
        raise NotImplementedError

    def move(self, state: State, ancestors: Tensor) -> State:
        """Return the state whose row ``i`` is row ``ancestors[i]`` of ``state``."""
        return pytree.tree_map_only(Tensor, lambda leaf: leaf.index_select(0, ancestors), state)

    def key(self, x: Tensor, state: State, rows: Tensor | None = None) -> Tensor:
        """Return integer rows ``[n, K]`` that identify what ``__call__`` would compute: equal keys, equal predictions."""
        return x

    def of(self, condition: Any) -> Denoiser:
        """Return a denoiser for calls whose rows are all of one condition, which need not be read from the state then.

        A run in which the host reads nothing (`fastguide.deferred`) asks for it, and calls it for the groups of each condition,
        where it is another object than this one.
        """
        return self

    def length_of(self, condition: Any = None) -> int | None:
        """Return the number of positions of a state under ``condition``; None where the process alone decides."""
        return None

    def decode(self, x0: Tensor, condition: Any = None) -> Any:
        """Turn clean states ``[n, L]`` into what a reward sees, where the caller of `fastguide.sample` says nothing else."""
        return x0

    def decode_soft(self, x0: Tensor, condition: Any = None) -> Tensor:
        """Do what `decode` does to soft clean states ``[n, L, V]``, with gradients: give ``[n, L', V]`` weights of tokens."""
        return x0


class _Wrapped(Denoiser):
    def __init__(self, fn: Callable[..., Any], batch_invariant: bool, differentiable: bool) -> None:
        self.fn = fn
        self.batch_invariant = batch_invariant
        self.differentiable = differentiable

    def __call__(self, x: Tensor, t: Tensor, state: State = None, rows: Tensor | None = None) -> Prediction:
        out = self.fn(x, t)
        if isinstance(out, Prediction):
            return out
        if not isinstance(out, Tensor):
            raise TypeError(f"denoiser: expected a torch.Tensor (of tokens: logits), got {type(out).__name__}")
        return Prediction(out)


def wrap(fn: Callable[..., Any], *, batch_invariant: bool = False, differentiable: bool = False) -> Denoiser:
    """Turn ``fn(x, t) -> output`` into a `Denoiser`; a `Denoiser` is returned as it is.

    Args:
        fn: maps states ``[n, *shape]`` and float32 noise levels ``[n]`` to what the process reads: logits ``[n, L, V]`` of
            tokens ``[n, L]``, for example.
        batch_invariant: promise that a row's logits have the same bits in a batch of any size (a table, an exact oracle),
            which saves the padding of calls.
        differentiable: promise that it also takes a soft one-hot ``[n, L, V + 1]`` of tokens, the mask last, with gradients.
    """
    if isinstance(fn, Denoiser):
        return fn
    if not callable(fn):
        raise TypeError(f"denoiser: expected a callable or a fastguide.models.Denoiser, got {type(fn).__name__}")
    return _Wrapped(fn, batch_invariant, differentiable)


def cat_states(states: list[State]) -> State:
    """Concatenate states of the same structure along the particle axis; leaves that are no tensors must be equal."""
    if len(states) == 1:
        return states[0]

    def join(first: Any, *others: Any) -> Any:
        if isinstance(first, Tensor):
            return torch.cat([first, *others])
        if any(other != first for other in others):
            raise ValueError(
                f"denoiser: states of different particles hold {first!r} and {next(o for o in others if o != first)!r}; "
                "make what differs between particles a tensor with one row a particle"
            )
        return first

    return pytree.tree_map(join, states[0], *states[1:])


def state_bytes(state: State) -> int:
    """Return the number of bytes that the leaves of ``state`` hold."""
    return sum(leaf.numel() * leaf.element_size() for leaf in pytree.tree_leaves(state) if isinstance(leaf, Tensor))
