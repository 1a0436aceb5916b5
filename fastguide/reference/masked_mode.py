"""``masked_mode`` in plain torch: a step that reveals everything, by the largest logit or by a draw."""

from __future__ import annotations

from torch import Tensor

from fastguide.reference.masked_step import masked_step
from fastguide.reference.philox import Stream


def masked_mode(
    tokens: Tensor,
    logits: Tensor,
    *,
    bias: Tensor | None,
    inverse_temperature: float,
    top_k: int | None,
    top_p: float | None,
    seeds: Tensor,
    step: int,
    slots: Tensor | None,
    lengths: Tensor | None,
) -> tuple[Tensor, int, int]:
    """Return the filled tokens ``[U, L]``, a status code and the first offending index, as the kernel does.

    An ``inverse_temperature`` of 0 takes the lowest index of the largest logit.
    """
    filled, code, index = masked_step(
        tokens,
        logits,
        reveal_probability=1.0,
        inverse_temperature=inverse_temperature,
        top_k=top_k,
        top_p=top_p,
        bias=bias,
        ancestors=None,
        branch=1,
        seeds=seeds,
        step=step,
        slots=slots,
        lengths=lengths,
        stream=Stream.VALUE,
    )
    return filled.squeeze(1), code, index
