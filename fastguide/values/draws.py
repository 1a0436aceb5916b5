"""Randomness that is a function of the state: equal states draw alike, wherever and whenever they are met.

A value that drew anew for each copy of a state would depend on how copies are merged and batched. Keyed by the state, it is one
fixed function of it, drawn once, and every guidance is as exact with it as with any other function.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastguide import clock
from fastguide.reference.philox import Stream, philox, word64

_INTEGERS = {4: torch.int32, 8: torch.int64, 2: torch.int16}


def state_seeds(x: Tensor, step: int, seed: int) -> Tensor:
    """Return ``[U]`` int64 seeds of states ``[U, *shape]`` after ``step`` steps.

    A multilinear hash of the row with 64 random bits a coefficient (two different rows share a value with probability 2⁻⁶³),
    mixed with the step by Philox.
    """
    rows = x.flatten(1)
    words = (rows.view(_INTEGERS[rows.element_size()]) if rows.is_floating_point() else rows).to(torch.int64)
    key = torch.full((1,), seed, dtype=torch.int64, device=x.device)
    place = torch.arange(words.shape[1] + 1, device=x.device)
    low, high, _, _ = philox(key, place, 0, 0, int(Stream.VALUE))
    coefficients = word64(low, high)
    hashed = (words * coefficients[1:]).sum(1) + coefficients[0]
    low, high, _, _ = philox(hashed, 0, 0, clock.number(step), int(Stream.VALUE))
    return word64(low, high) & (2**63 - 1)


def soft_mean(rewards: Tensor, alpha: float) -> Tensor:
    """Return ``alpha · log mean_k exp(r_k / alpha)`` ``[U]`` of ``[U, m]``; at alpha = 0 its limit, the maximum."""
    if alpha == 0:
        return rewards.amax(1)
    count = torch.full((), float(rewards.shape[1]), dtype=rewards.dtype, device=rewards.device)
    return alpha * (torch.logsumexp(rewards / alpha, dim=1) - count.log())
