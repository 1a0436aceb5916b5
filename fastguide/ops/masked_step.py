"""One reverse step of masked diffusion: gather the parents, reveal positions, draw their tokens.

Nothing is computed for a position that stays as it is: no softmax, no random word, no read of its logits. A token is
drawn by an exact inverse CDF over integer weights with a 64-bit uniform, so a probability of 1e-9 is drawn as often as
it should be, a forbidden token never, and the same seed gives the same tokens on every backend.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastguide import config
from fastguide.ops import _masked, _native
from fastguide.reference import masked_step as reference
from fastguide.reference.philox import expand_seed


def masked_step(
    tokens: Tensor,
    logits: Tensor,
    *,
    reveal_probability: float,
    temperature: float = 1.0,
    bias: Tensor | None = None,
    ancestors: Tensor | None = None,
    branch: int = 1,
    seed: int | Tensor = 0,
    step: int = 0,
    slots: Tensor | None = None,
    lengths: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Propose ``branch`` children of every particle.

    Each masked position of each child is revealed independently with ``reveal_probability``; a revealed position draws
    its token from ``softmax((logits + bias) / temperature)``; everything else is copied from the parent. Draws are keyed
    by the seed of the group, the step, the slot ``n * branch + m`` of the child in its group and the position, hence any
    subset of particles given with its ``slots`` (and one seed each, ``[P]``) repeats its part of the whole.

    Args:
        tokens: ``[U, L]`` int64 or int32, distinct states; the value ``V`` is the mask.
        logits: ``[U, L, V]`` float32, float16 or bfloat16, contiguous along ``V`` (otherwise copied); ``-inf`` forbids.
            Rows at positions that are not revealed are never read.
        reveal_probability: in ``[0, 1]``, resolved to 2^-32.
        temperature: positive, or 0 for the largest logit, the lowest index on ties.
        bias: ``[V]`` or ``[L, V]``, added to the logits in float32 before the temperature; ``-inf`` forbids.
        ancestors: ``[P]`` int64 or int32, the row of ``tokens`` that each particle continues; default ``0..U-1``.
        branch: children of a particle, M.
        seed: an int (one group), or ``[G]`` int64, one a group; groups are contiguous and of equal size, G divides P.
        step: the number of the step, keying its draws.
        slots: ``[P]`` int64 or int32, the number of each particle within its group; default ``0..P/G-1``.
        lengths: ``[G]`` int64 or int32; positions from the length of the group on are padding, copied and never drawn.
        backend: ``"cpu"`` or ``"torch"``; default as :func:`fastguide.config.choose_backend` says.

    Returns:
        ``[P, M, L]`` of the dtype of ``tokens``.

    Raises:
        ValueError: shapes or settings do not fit; a token is outside ``0..V``; a row that is read holds NaN, +inf or a
            value above 1e9, or forbids every token.
        IndexError: an ancestor or slot is out of range.
        TypeError: a dtype is not one of those above.
    """
    if torch.compiler.is_compiling():
        by_group = isinstance(seed, Tensor)
        children: Tensor = torch.ops.fastguide.masked_step(
            tokens, logits, reveal_probability, temperature, bias, ancestors, branch, 0 if by_group else seed,
            seed if by_group else None, step, slots, lengths, backend,
        )  # fmt: skip
        return children
    if not 0.0 <= reveal_probability <= 1.0:
        raise ValueError(f"reveal_probability: expected a number in [0, 1], got {reveal_probability}")
    if branch < 1:
        raise ValueError(f"branch: expected at least one child, got {branch}")
    tokens, logits = _masked.check_states(tokens, logits)
    inverse_temperature = _masked.check_temperature(temperature)
    bias = _masked.check_bias(bias, logits)
    ancestors = _masked.check_indices("ancestors", ancestors, None, tokens)
    particles = len(tokens) if ancestors is None else len(ancestors)
    slots = _masked.check_indices("slots", slots, particles, tokens)
    seed = _masked.check_seed(seed, particles, tokens)
    lengths = _masked.check_lengths(lengths, seed, tokens.shape[1], tokens)
    step = _masked.check_step(step)

    if config.choose_backend(tokens.device, backend) == "cpu":
        children = tokens.new_empty((particles, branch, tokens.shape[1]))
        code, index = _native.masked_step(
            tokens,
            logits,
            children,
            reveal_probability,
            inverse_temperature,
            bias,
            ancestors,
            seed,
            step,
            slots,
            lengths,
        )
    else:
        children, code, index = reference.masked_step(
            tokens,
            logits,
            reveal_probability=reveal_probability,
            inverse_temperature=inverse_temperature,
            bias=bias,
            ancestors=ancestors,
            branch=branch,
            seeds=seed if isinstance(seed, Tensor) else expand_seed(seed, 1, tokens.device),
            step=step,
            slots=slots,
            lengths=lengths,
        )
    if code != _native.OK:
        _masked.raise_status(code, index, tokens, logits, bias, ancestors, slots, branch)
    return children
