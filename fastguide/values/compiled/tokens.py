"""Compiled values of token states ``[N, L]`` of int64, int32 or uint8; a token outside the vocabulary is refused."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fastguide.ops import _checks
from fastguide.values.compiled.protocol import Compiled, parameter


@dataclass(frozen=True, eq=False)
class PositionWeightMatrix(Compiled):
    """``Σ_l scores[l, x_l]``; sliding, the largest such sum over all windows of W consecutive tokens.

    The sum of a window is float64, in order; rounded to float32 once.

    Args:
        scores: ``[L, V]``, or ``[W, V]`` if sliding; taken as float32, ``-inf`` forbids a token.
        sliding: whether states may be longer than the scores.
        name: column name in tables and reports.
    """

    scores: Tensor
    sliding: bool = False
    name: str = "position_weights"
    kind: str = field(default="position_weights", init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "scores", parameter("scores", self.scores, ["L", "V"], forbids=True))
        object.__setattr__(self, "differentiable", bool(torch.isfinite(self.scores).all()))

    def check_columns(self, columns: int) -> None:
        """Raise ValueError unless the scores cover a state, or sliding a part of it."""
        length = len(self.scores)
        if columns < length or (columns > length and not self.sliding):
            expected = f"at least {length} tokens" if self.sliding else f"{length} tokens"
            advice = "" if self.sliding else "; set sliding=True to take the best window of longer ones"
            raise ValueError(f"{self.name}: expected states of {expected} each, got {columns}{advice}")

    def soft(self, x0: Tensor) -> Tensor:
        """Return float64 ``[n]`` of weights of tokens ``[n, L, V]``, with gradients; refused where a score is −inf."""
        if not self.differentiable:
            return super().soft(x0)
        self.check_columns(x0.shape[1])
        windows = x0.double().unfold(1, len(self.scores), 1)  # [n, windows, V, W]
        return torch.einsum("nsvw,wv->ns", windows, self.scores.double()).amax(dim=1)

    def arguments(self, dtype: torch.dtype) -> tuple[list[Tensor], list[int]]:
        """Return the scores; their sizes."""
        return [self.scores], list(self.scores.shape)


@dataclass(frozen=True, eq=False)
class MotifCount(Compiled):
    """How often a motif, or any of several, occurs; occurrences may overlap and count each.

    Args:
        motifs: token ids of a motif, ``[2, 0, 2]``, or a sequence of such.
        vocab: V; tokens are 0 to V − 1.
        name: column name in tables and reports.
    """

    motifs: Sequence[Any]
    vocab: int
    name: str = "motif_count"
    kind: str = field(default="motif_count", init=False, repr=False)

    def __post_init__(self) -> None:
        vocab = _checks.count("vocab", self.vocab)
        given = list(self.motifs)
        if not given:
            raise ValueError("motifs: none given")
        several = given if all(hasattr(motif, "__len__") and not isinstance(motif, str) for motif in given) else [given]
        try:
            motifs = tuple(tuple(operator.index(t) for t in motif) for motif in several)
        except TypeError:
            raise TypeError(f"motifs: expected token ids, or sequences of them, got {given!r}") from None
        for i, motif in enumerate(motifs):
            if not motif or not all(0 <= t < vocab for t in motif):
                raise ValueError(f"motifs: motif {i} is {list(motif)}; expected one or more tokens 0 to {vocab - 1}")
        object.__setattr__(self, "motifs", motifs)
        object.__setattr__(self, "vocab", vocab)

    def check_columns(self, columns: int) -> None:
        """Any length will do; a motif does not occur in what is shorter."""

    def arguments(self, dtype: torch.dtype) -> tuple[list[Tensor], list[int]]:
        """Return the vocabulary, the number of motifs, their lengths and their tokens."""
        lengths = [len(motif) for motif in self.motifs]
        return [], [self.vocab, len(lengths), *lengths, *(t for motif in self.motifs for t in motif)]


@dataclass(frozen=True, eq=False)
class Potts(Compiled):
    """``Σ_i fields[i, x_i] + Σ_{i<j} couplings[i, j, x_i, x_j]``: the log-weight of a Potts model, minus its energy.

    For each i the field and the couplings to j = i + 1, i + 2, … are summed in float32, these sums in float64; rounded to
    float32 once.

    Args:
        fields: ``[L, V]``; taken as float32, ``-inf`` forbids a token.
        couplings: ``[L, L, V, V]``; only i < j is read, so symmetric couplings count once, not twice; ``-inf`` forbids.
        name: column name in tables and reports.
    """

    fields: Tensor
    couplings: Tensor
    name: str = "potts"
    kind: str = field(default="potts", init=False, repr=False)

    def __post_init__(self) -> None:
        fields = parameter("fields", self.fields, ["L", "V"], forbids=True)
        length, vocab = fields.shape
        object.__setattr__(self, "fields", fields)
        object.__setattr__(
            self, "couplings", parameter("couplings", self.couplings, [length, length, vocab, vocab], forbids=True)
        )
        finite = torch.isfinite(self.fields).all() & torch.isfinite(self.couplings).all()
        object.__setattr__(self, "differentiable", bool(finite))

    def check_columns(self, columns: int) -> None:
        """Raise ValueError unless a state has as many tokens as there are fields."""
        if columns != len(self.fields):
            raise ValueError(f"{self.name}: expected states of {len(self.fields)} tokens each, got {columns}")

    @cached_property
    def _pairs(self) -> Tensor:
        """``[L·V, L·V]``, the couplings of i < j."""
        length, vocab = self.fields.shape
        before = torch.ones(length, length).triu(1)[:, :, None, None]
        return (self.couplings * before).transpose(1, 2).reshape(length * vocab, length * vocab)

    def soft(self, x0: Tensor) -> Tensor:
        """Return float32 ``[n]`` of weights of tokens ``[n, L, V]``, with gradients; refused where a term is −inf."""
        if not self.differentiable:
            return super().soft(x0)
        self.check_columns(x0.shape[1])
        s = x0.float().flatten(1)
        return s @ self.fields.flatten() + (s @ self._pairs * s).sum(dim=1)

    def arguments(self, dtype: torch.dtype) -> tuple[list[Tensor], list[int]]:
        """Return fields and couplings; the vocabulary."""
        return [self.fields, self.couplings], [self.fields.shape[1]]
