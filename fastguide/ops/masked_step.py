"""One reverse step of masked diffusion: gather the parents, reveal and remask positions, draw tokens.

Nothing is computed for a position that stays as it is: no softmax, no random word, no read of its logits. A token is
drawn by an exact inverse CDF over integer weights with a 64-bit uniform, so a probability of 1e-9 is drawn as often as
it should be, a forbidden token never, and the same seed gives the same tokens on every backend.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastguide import config
from fastguide.deferred import deferring
from fastguide.ops import _arrays, _checks, _library, _masked, _native, _triton
from fastguide.reference import masked_step as _reference
from fastguide.reference.philox import expand_seed


def masked_step(
    tokens: Tensor,
    logits: Tensor,
    *,
    reveal_probability: float | Tensor | None = None,
    reveal_count: int | Tensor | None = None,
    order: str = "random",
    remask_probability: float | Tensor = 0.0,
    frozen: Tensor | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    bias: Tensor | None = None,
    shift: Tensor | None = None,
    ancestors: Tensor | None = None,
    branch: int = 1,
    seed: int | Tensor = 0,
    step: int | Tensor = 0,
    slots: Tensor | None = None,
    lengths: Tensor | None = None,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Propose ``branch`` children of every particle.

    Of the masked positions of each child some are revealed: each independently with ``reveal_probability``, or exactly
    ``reveal_count``. A revealed position draws its token from ``p = softmax((logits + bias) / temperature)`` cut to
    ``top_k`` and ``top_p``, or with a ``shift`` from ``q = softmax(log p + shift)``. Each other token returns to the
    mask independently with ``remask_probability``; all else is copied from the parent. What a position may do is
    settled by the parent: none is remasked and revealed in one step.

    Draws are keyed by the seed of the group, the step, the slot ``n * branch + m`` of the child in its group and the
    position, hence any subset of particles given with its ``slots`` (and one seed each, ``[P]``) repeats its part of
    the whole. One 32-bit word decides whether a position changes and, where counts decide, ranks it.

    Args:
        tokens: ``[U, L]`` int64 or int32, distinct states; the value ``V`` is the mask.
        logits: ``[U, L, V]`` float32, float16 or bfloat16, contiguous along ``V`` (otherwise copied); ``-inf`` forbids.
            Rows at positions that are not revealed are never read (but see ``order``).
        reveal_probability: in ``[0, 1]``, resolved to 2^-32: a number, or a floating-point tensor of one on the device,
            read as ``step`` is; NaN is 0 there. Exactly one of this and ``reveal_count`` is given.
        reveal_count: at least 0, for all, a number or a tensor of no dimension, or ``[G]`` int64 or int32, one a group: as
            many masked positions of each child are revealed, or all where there are fewer.
        order: which positions ``reveal_count`` takes. ``"random"``: a uniformly random subset, one for each child.
            ``"confidence"``: those whose largest token probability under ``p`` (at temperature 0: that of temperature
            1) is highest, the lowest positions on ties; the same for all children of a state. It reads the rows of all
            masked positions, unless none or all are revealed.
        remask_probability: in ``[0, 1]``, resolved to 2^-32, a number or a tensor as ``reveal_probability`` is; of each
            token that is not the mask, padding or frozen.
        frozen: bool ``[L]`` or ``[U, L]``, positions whose token is never remasked.
        temperature: positive, or 0 for the largest logit, the lowest index on ties.
        top_k: keep the tokens that fewer than ``top_k`` others exceed (equals of the last one kept are kept too).
        top_p: in ``(0, 1]``: keep the fewest most probable tokens, of those left by ``top_k``, that hold this share of
            their probability, and the equals of the last one.
        bias: ``[V]`` or ``[L, V]``, added to the logits in float32 before the temperature; ``-inf`` forbids.
        shift: ``[U, L, V]`` float32, added to the scaled logits of the tokens kept, in float32; ``-inf`` forbids. Not with
            a temperature of 0, whose draws are certain.
        ancestors: ``[P]`` int64 or int32, the row of ``tokens`` that each particle continues; default ``0..U-1``.
        branch: children of a particle, M.
        seed: an int or int64 tensor of no dimension (one group), or ``[G]`` int64, one a group; groups are contiguous and
            of equal size, G divides P.
        step: the number of the step, keying its draws; or an int64 tensor of it on the device, which the kernels of
            ``"triton"`` read themselves, so that a captured graph draws anew at each replay.
        slots: ``[P]`` int64 or int32, the number of each particle within its group; default ``0..P/G-1``.
        lengths: ``[G]`` int64 or int32; positions from the length of the group on are padding: copied, never drawn,
            remasked or counted.
        out: ``[P, M, L]``, contiguous, of the dtype of ``tokens`` and apart from all that is read: written and returned.
        backend: ``"cpu"``, ``"triton"`` or ``"torch"``; default as :func:`fastguide.config.choose_backend` says.

    Returns:
        ``[P, M, L]`` of the dtype of ``tokens``.

    Raises:
        ValueError: shapes or settings do not fit; a token is outside ``0..V``; a row that is read holds NaN, +inf or a
            value above 1e9, or forbids every token; on ``"triton"``, ``reveal_count`` with L above 32,768.
        IndexError: an ancestor or slot is out of range.
        TypeError: a dtype is not one of those above.
    """
    if type(tokens) is not Tensor and _arrays.is_foreign(tokens):
        return _arrays.in_torch(masked_step, tokens, locals())
    reveals, reveal, counts, count = _masked.check_reveal(reveal_probability, reveal_count, order, tokens)
    remasks, remask = _masked.check_probability("remask_probability", remask_probability, tokens)
    branch = _checks.count("branch", branch)
    steps, at = _checks.step_or_tensor(step, tokens)
    inverse_temperature = _masked.check_temperature(temperature)
    tokens, logits = _masked.check_states(tokens, logits)
    most, share = _masked.check_truncation(top_k, top_p)
    bias = _masked.check_bias(bias, logits)
    if shift is not None:
        shift = _masked.check_shift(shift, logits, temperature)
    if frozen is not None:
        frozen = _masked.check_frozen(frozen, tokens)
    ancestors = _masked.check_indices("ancestors", ancestors, None, tokens)
    particles = tokens.shape[0] if ancestors is None else ancestors.shape[0]
    slots = _masked.check_indices("slots", slots, particles, tokens)
    seeds, number = _masked.check_seed(seed, particles, tokens)
    lengths = _masked.check_lengths(lengths, seeds, tokens.shape[1], tokens)
    if counts is not None:
        counts = _masked.check_per_group("reveal_count", counts, seeds, tokens)
    if out is not None:
        read = (tokens, logits, counts, frozen, bias, shift, ancestors, seeds, slots, lengths, reveals, remasks, steps)
        _masked.check_out(out, (particles, branch, tokens.shape[1]), read)
    settings = (
        tokens, logits, reveals, reveal, counts, count, order == "confidence", remasks, remask, frozen,
        inverse_temperature, most, share, bias, shift, ancestors, branch, seeds, number, steps, at, slots, lengths,
        backend,
    )  # fmt: skip
    if torch.compiler.is_compiling():
        children: Tensor = _op(*settings)
        return children if out is None else out.copy_(children)
    return _launch(*settings, out)


def _launch(
    tokens: Tensor,
    logits: Tensor,
    reveals: Tensor | None,
    reveal_probability: float,
    counts: Tensor | None,
    count: int,
    confidence: bool,
    remasks: Tensor | None,
    remask_probability: float,
    frozen: Tensor | None,
    inverse_temperature: float,
    top_k: int,
    top_p: float,
    bias: Tensor | None,
    shift: Tensor | None,
    ancestors: Tensor | None,
    branch: int,
    seeds: Tensor | None,
    seed: int,
    steps: Tensor | None,
    step: int,
    slots: Tensor | None,
    lengths: Tensor | None,
    backend: str | None,
    out: Tensor | None = None,
) -> Tensor:
    if counts is not None and not deferring():
        _masked.refuse_negative("reveal_count", counts)
    backend = config.choose_backend(tokens.device, backend)
    at = _checks.step_for(backend, steps, step)
    reveal: Any = reveal_probability
    if reveals is not None:
        reveal = _masked.probability_for(backend, "reveal_probability", reveals)
    remask: Any = remask_probability
    if remasks is not None:
        remask = _masked.probability_for(backend, "remask_probability", remasks)
    if backend != "torch":
        children = _empty_children(tokens, ancestors, branch) if out is None else out
        settings = (
            tokens, logits, children, reveal, counts, count, confidence, remask, frozen,
            inverse_temperature, top_k, top_p, bias, shift, ancestors, seeds, seed, at, slots, lengths,
        )  # fmt: skip
        if backend == "cpu":
            _checks.on_cpu("tokens", tokens)
            if out is None:
                _native.advise_huge_pages(children)
            code, index = _native.masked_step(*settings)
        else:
            code, index = _triton.run("masked_step", tokens, *settings)
    else:
        groups = 1 if seeds is None else len(seeds)
        if counts is None and count >= 0:
            counts = torch.full((groups,), count, device=tokens.device)
        children, code, index = _reference.masked_step(
            tokens,
            logits.detach(),
            reveal_probability=None if count >= 0 else reveal,
            counts=counts,
            confidence=confidence,
            remask_probability=remask,
            frozen=frozen,
            inverse_temperature=inverse_temperature,
            top_k=top_k or None,
            top_p=top_p,
            bias=None if bias is None else bias.detach(),
            shift=None if shift is None else shift.detach(),
            ancestors=ancestors,
            branch=branch,
            seeds=expand_seed(seed & 0xFFFFFFFFFFFFFFFF, 1, tokens.device) if seeds is None else seeds,
            step=at,
            slots=slots,
            lengths=lengths,
        )
        if out is not None and code == _native.OK:
            children = out.copy_(children)
    if code != _native.OK:
        _masked.raise_status(code, index, tokens, logits, bias, shift, ancestors, slots, branch)
    return children


def _empty_children(tokens: Tensor, ancestors: Tensor | None, branch: int) -> Tensor:
    return tokens.new_empty((tokens.shape[0] if ancestors is None else ancestors.shape[0], branch, tokens.shape[1]))


def _fake(
    tokens: Tensor,
    logits: Tensor,
    reveals: Tensor | None,
    reveal_probability: float,
    counts: Tensor | None,
    count: int,
    confidence: bool,
    remasks: Tensor | None,
    remask_probability: float,
    frozen: Tensor | None,
    inverse_temperature: float,
    top_k: int,
    top_p: float,
    bias: Tensor | None,
    shift: Tensor | None,
    ancestors: Tensor | None,
    branch: int,
    seeds: Tensor | None,
    seed: int,
    steps: Tensor | None,
    step: int,
    slots: Tensor | None,
    lengths: Tensor | None,
    backend: str | None,
) -> Tensor:
    return _empty_children(tokens, ancestors, branch)


_op = _library.register(
    "masked_step(Tensor tokens, Tensor logits, Tensor? reveals, float reveal_probability, Tensor? counts, SymInt count, "
    "bool confidence, Tensor? remasks, float remask_probability, Tensor? frozen, float inverse_temperature, "
    "SymInt top_k, float top_p, "
    "Tensor? bias, Tensor? shift, Tensor? ancestors, SymInt branch, Tensor? seeds, int seed, Tensor? steps, SymInt step, "
    "Tensor? slots, Tensor? lengths, str? backend) -> Tensor",
    _launch,
    _fake,
)
