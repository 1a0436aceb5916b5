"""One reverse step of masked diffusion: gather the parents, reveal positions, draw their tokens.

Nothing is computed for a position that stays as it is: no softmax, no random word, no read of its logits. A token is
drawn by an exact inverse CDF over integer weights with a 64-bit uniform, so a probability of 1e-9 is drawn as often as
it should be, a forbidden token never, and the same seed gives the same tokens on every backend.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fastguide import config
from fastguide.ops import _checks, _library, _masked, _native
from fastguide.reference import masked_step as _reference
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

    Each masked position of each child is revealed independently with ``reveal_probability``; a revealed position
    draws its token from ``softmax((logits + bias) / temperature)``; everything else is copied from the parent. Draws
    are keyed by the seed of the group, the step, the slot ``n * branch + m`` of the child in its group and the
    position, hence any subset of particles given with its ``slots`` (and one seed each, ``[P]``) repeats its part of
    the whole.

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
    if not 0.0 <= reveal_probability <= 1.0:
        raise ValueError(f"reveal_probability: expected a number in [0, 1], got {reveal_probability}")
    branch = _checks.count("branch", branch)
    _checks.step(step)
    inverse_temperature = _masked.check_temperature(temperature)
    tokens, logits = _masked.check_states(tokens, logits)
    bias = _masked.check_bias(bias, logits)
    ancestors = _masked.check_indices("ancestors", ancestors, None, tokens)
    particles = tokens.shape[0] if ancestors is None else ancestors.shape[0]
    slots = _masked.check_indices("slots", slots, particles, tokens)
    seeds, number = _masked.check_seed(seed, particles, tokens)
    lengths = _masked.check_lengths(lengths, seeds, tokens.shape[1], tokens)
    launch = _op if torch.compiler.is_compiling() else _launch
    children: Tensor = launch(
        tokens, logits, float(reveal_probability), inverse_temperature, bias, ancestors, branch, seeds, number, step,
        slots, lengths, backend,
    )  # fmt: skip
    return children


def _launch(
    tokens: Tensor,
    logits: Tensor,
    reveal_probability: float,
    inverse_temperature: float,
    bias: Tensor | None,
    ancestors: Tensor | None,
    branch: int,
    seeds: Tensor | None,
    seed: int,
    step: int,
    slots: Tensor | None,
    lengths: Tensor | None,
    backend: str | None,
) -> Tensor:
    if config.choose_backend(tokens.device, backend) == "cpu":
        _checks.on_cpu("tokens", tokens)
        children = _empty_children(tokens, ancestors, branch)
        code, index = _native.masked_step(
            tokens, logits, children, reveal_probability, inverse_temperature, bias, ancestors, seeds, seed, step,
            slots, lengths,
        )  # fmt: skip
    else:
        children, code, index = _reference.masked_step(
            tokens,
            logits.detach(),
            reveal_probability=reveal_probability,
            inverse_temperature=inverse_temperature,
            bias=None if bias is None else bias.detach(),
            ancestors=ancestors,
            branch=branch,
            seeds=expand_seed(seed & 0xFFFFFFFFFFFFFFFF, 1, tokens.device) if seeds is None else seeds,
            step=step,
            slots=slots,
            lengths=lengths,
        )
    if code != _native.OK:
        _masked.raise_status(code, index, tokens, logits, bias, ancestors, slots, branch)
    return children


def _empty_children(tokens: Tensor, ancestors: Tensor | None, branch: int) -> Tensor:
    return tokens.new_empty((tokens.shape[0] if ancestors is None else ancestors.shape[0], branch, tokens.shape[1]))


def _fake(
    tokens: Tensor,
    logits: Tensor,
    reveal_probability: float,
    inverse_temperature: float,
    bias: Tensor | None,
    ancestors: Tensor | None,
    branch: int,
    seeds: Tensor | None,
    seed: int,
    step: int,
    slots: Tensor | None,
    lengths: Tensor | None,
    backend: str | None,
) -> Tensor:
    return _empty_children(tokens, ancestors, branch)


_op = _library.register(
    "masked_step(Tensor tokens, Tensor logits, float reveal_probability, float inverse_temperature, Tensor? bias, "
    "Tensor? ancestors, SymInt branch, Tensor? seeds, int seed, SymInt step, Tensor? slots, Tensor? lengths, "
    "str? backend) -> Tensor",
    _launch,
    _fake,
)
