"""``masked_mode`` on the GPU: a step that reveals everything, with draws from a stream of its own."""

from __future__ import annotations

from torch import Tensor

from fastguide.reference.philox import Stream
from fastguide.triton.masked_step import masked_step


def masked_mode(
    tokens: Tensor,
    logits: Tensor,
    filled: Tensor,
    inverse_temperature: float,
    top_k: int,
    top_p: float,
    bias: Tensor | None,
    seeds: Tensor | None,
    seed: int,
    step: int | Tensor,
    slots: Tensor | None,
    lengths: Tensor | None,
    status: Tensor,
) -> None:
    """Write ``filled`` ``[U, 1, L]``; arguments as in `fastguide.ops._native.masked_mode`."""
    masked_step(
        tokens, logits, filled, 1.0, None, -1, False, 0.0, None, inverse_temperature, top_k, top_p, bias, None, None,
        seeds, seed, step, slots, lengths, status, Stream.VALUE,
    )  # fmt: skip
