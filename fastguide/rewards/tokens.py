"""The check that rewards of protein sequences share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastguide.deferred import deferring, require
from fastguide.protein.alphabet import ALPHABET


def check_tokens(x0: Any, reward: str) -> Tensor:
    """Return ``x0`` where it is int64 ``[n, L]`` with tokens 0..19 and L ≥ 1.

    Raises:
        TypeError: it is no integer tensor.
        ValueError: its shape or a token is wrong; the message names ``reward``.
    """
    if not isinstance(x0, Tensor):
        raise TypeError(f"{reward}: expected int64 tokens [n, L], got {type(x0).__name__}; leave out decode=")
    if x0.dtype != torch.int64:
        raise TypeError(f"{reward}: expected int64 tokens [n, L], got {str(x0.dtype).removeprefix('torch.')}")
    if x0.dim() != 2 or x0.shape[1] == 0:
        raise ValueError(f"{reward}: expected tokens [n, L] with L of 1 or more, got shape {list(x0.shape)}")
    if not len(x0):
        return x0
    columns = x0.shape[1]

    def report(first: int, token: float) -> ValueError:
        return ValueError(
            f"{reward}: token {int(token)} at [{first // columns}, {first % columns}] is no amino acid; tokens are 0 to 19 "
            f"({ALPHABET}), and 20 (unknown or masked) has no score"
        )

    require((x0 >= 0) & (x0 < len(ALPHABET)), x0, report)
    # What comes before the error is raised reads tables by them.
    return x0.clamp(0, len(ALPHABET) - 1) if deferring() else x0


def check_chains(chains: Sequence[int] | None, reward: str) -> tuple[int, ...] | None:
    """Return the chain lengths as a tuple, None where all columns are one chain.

    Raises:
        ValueError: there are none, or one is not positive.
    """
    if chains is None:
        return None
    lengths = tuple(int(length) for length in chains)
    if not lengths or min(lengths) < 1:
        raise ValueError(f"{reward}: chains: expected positive lengths such as (76, 76), got {list(chains)}")
    return lengths


def split_chains(x: Tensor, chains: tuple[int, ...] | None, reward: str) -> tuple[Tensor, ...]:
    """Return the columns ``[n, L, …]`` of each chain.

    Raises:
        ValueError: the lengths do not add up to L.
    """
    if chains is None:
        return (x,)
    if sum(chains) != x.shape[1]:
        raise ValueError(f"{reward}: chains of {list(chains)} residues need {sum(chains)} columns, got {x.shape[1]}")
    return torch.split(x, list(chains), dim=1)
