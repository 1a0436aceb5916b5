"""Classifier-free guidance: one network with its condition and without it.

``p(x | condition)^g p(x)^(1 − g)``: log-probabilities or noise estimates are combined as ``g · conditional + (1 − g) ·
unconditional``, both from one call of twice as many rows: a `fastguide.models.Product` whose two experts are one network.

Source: Ho and Salimans, 2207.12598.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fastguide.models.product import Product
from fastguide.models.protocol import Denoiser, State


class ClassifierFree(Product):
    """One network under a condition and without it, both in one call of twice as many rows; see `classifier_free`.

    Row i of a state holds both: leaves are ``[n, 2, …]``.
    """

    def __init__(
        self,
        denoiser: Denoiser | Callable[..., Any],
        weight: float,
        conditional: Any,
        unconditional: Any,
        corrected: bool,
    ) -> None:
        super().__init__([denoiser, denoiser], [weight, 1.0 - weight], corrected=corrected)
        self.inner = self.denoisers[0]
        self.conditional, self.unconditional = conditional, unconditional

    def _condition(self, condition: Any) -> Any:
        return self.conditional if condition is None else condition

    def init(self, n: int, condition: Any = None) -> State:
        """Return the state under ``condition`` (the one given to `classifier_free` where None) and without it."""
        both = [self.inner.init(n, c) for c in (self._condition(condition), self.unconditional)]
        return pytree.tree_map(lambda a, b: torch.stack([a, b], 1) if isinstance(a, Tensor) else a, *both)

    def experts(
        self, x: Tensor, t: Tensor, state: State = None, rows: Tensor | None = None
    ) -> tuple[list[Tensor], State]:
        """Return what the network says with the condition and without it."""
        out = self.inner(
            x.repeat_interleave(2, 0), t.repeat_interleave(2, 0), _flat(state), None if rows is None else _both(rows)
        )
        return [out.output[0::2], out.output[1::2]], _paired(out.state)

    def move(self, state: State, ancestors: Tensor) -> State:
        """Move both states."""
        return _paired(self.inner.move(_flat(state), _both(ancestors)))

    def key(self, x: Tensor, state: State, rows: Tensor | None = None) -> Tensor:
        """Return what identifies both calls."""
        key = self.inner.key(x.repeat_interleave(2, 0), _flat(state), None if rows is None else _both(rows))
        return key.reshape(len(x), -1)

    def length_of(self, condition: Any = None) -> int | None:
        """As the network says under the condition."""
        return self.inner.length_of(self._condition(condition))

    def decode(self, x0: Tensor, condition: Any = None) -> Any:
        """As the network does under the condition."""
        return self.inner.decode(x0, self._condition(condition))

    def decode_soft(self, x0: Tensor, condition: Any = None) -> Tensor:
        """As the network does under the condition."""
        return self.inner.decode_soft(x0, self._condition(condition))


def classifier_free(
    denoiser: Denoiser | Callable[..., Any],
    weight: float,
    *,
    conditional: Any = None,
    unconditional: Any = None,
    corrected: bool = False,
) -> ClassifierFree:
    """Return the denoiser of ``p(x | condition)^g p(x)^(1 − g)``, classifier-free guidance of weight g.

    Args:
        denoiser: a `Denoiser` whose ``init`` reads its condition.
        weight: g; 0 without the condition, 1 with it, above 1 beyond.
        conditional: the condition of groups to which `fastguide.sample` gives none in ``condition``.
        unconditional: what stands for no condition, such as an empty prompt.
        corrected: as for `Product`.
    """
    return ClassifierFree(denoiser, weight, conditional, unconditional, corrected)


def _both(rows: Tensor) -> Tensor:
    """Return the rows ``2r`` and ``2r + 1`` of each row r."""
    return torch.stack([2 * rows, 2 * rows + 1], 1).flatten()


def _flat(state: State) -> State:
    return pytree.tree_map_only(Tensor, lambda leaf: leaf.flatten(0, 1), state)


def _paired(state: State) -> State:
    return pytree.tree_map_only(Tensor, lambda leaf: leaf.view(-1, 2, *leaf.shape[1:]), state)
