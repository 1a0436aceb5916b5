"""A clean sample out of a masked state: its masked positions filled from the logits, without a softmax."""

from __future__ import annotations

import torch
from torch import Tensor

from fastguide import config
from fastguide.ops import _arrays, _checks, _library, _masked, _native, _triton
from fastguide.reference import masked_mode as _reference
from fastguide.reference.philox import expand_seed


def masked_mode(
    tokens: Tensor,
    logits: Tensor,
    *,
    bias: Tensor | None = None,
    rule: str = "argmax",
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int | Tensor = 0,
    step: int | Tensor = 0,
    slots: Tensor | None = None,
    lengths: Tensor | None = None,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Fill the masked positions of every state.

    Args:
        tokens: ``[U, L]`` int64 or int32; the value ``V`` is the mask. Other tokens are kept.
        logits: ``[U, L, V]`` float32, float16 or bfloat16; ``-inf`` forbids. Read at masked positions only.
        bias: ``[V]`` or ``[L, V]``, added to the logits in float32; ``-inf`` forbids.
        rule: ``"argmax"``: the largest ``logits + bias``, the lowest index on ties; ``"draw"``: a token from
            ``softmax((logits + bias) / temperature)`` cut to ``top_k`` and ``top_p``, as
            :func:`fastguide.ops.masked_step.masked_step` draws it but from a stream of its own.
        temperature: of ``"draw"``; 0 is ``"argmax"``.
        top_k: of ``"draw"``; as in :func:`fastguide.ops.masked_step.masked_step`, and so is ``top_p``.
        top_p: of ``"draw"``, in ``(0, 1]``.
        seed: an int or int64 tensor of no dimension (one group), or ``[G]`` int64, one a group of ``U / G`` consecutive
            states. Read by ``"draw"`` only, as are ``step`` and ``slots``; the number of groups also tells which length a
            state has.
        step: the number of the step, keying the draws; or a tensor of it, as there.
        slots: ``[U]`` int64 or int32, the number of each state within its group; default ``0..U/G-1``.
        lengths: ``[G]`` int64 or int32; positions from the length of the group on are padding, copied and never filled.
        out: ``[U, L]``, contiguous, of the dtype of ``tokens`` and apart from them: written and returned.
        backend: ``"cpu"``, ``"triton"`` or ``"torch"``; default as :func:`fastguide.config.choose_backend` says.

    Returns:
        ``[U, L]`` of the dtype of ``tokens``.

    Raises:
        ValueError: shapes or settings do not fit; a token is outside ``0..V``; the row of a masked position holds NaN,
            +inf or a value above 1e9, or forbids every token.
        IndexError: a slot is out of range.
        TypeError: a dtype is not one of those above.
    """
    if type(tokens) is not Tensor and _arrays.is_foreign(tokens):
        return _arrays.in_torch(masked_mode, tokens, locals())
    if rule not in ("argmax", "draw"):
        _checks.choice("rule", rule, ("argmax", "draw"))
    steps, at = _checks.step_or_tensor(step, tokens)
    inverse_temperature = _masked.check_temperature(temperature) if rule == "draw" else 0.0
    tokens, logits = _masked.check_states(tokens, logits)
    most, share = _masked.check_truncation(top_k, top_p)
    bias = _masked.check_bias(bias, logits)
    slots = _masked.check_indices("slots", slots, tokens.shape[0], tokens)
    seeds, number = _masked.check_seed(seed, tokens.shape[0], tokens)
    lengths = _masked.check_lengths(lengths, seeds, tokens.shape[1], tokens)
    if out is not None:
        _masked.check_out(out, tuple(tokens.shape), (tokens, logits, bias, seeds, slots, lengths))
    settings = (
        tokens, logits, inverse_temperature, most, share, bias, seeds, number, steps, at, slots, lengths, backend,
    )  # fmt: skip
    if torch.compiler.is_compiling():
        filled: Tensor = _op(*settings)
        return filled if out is None else out.copy_(filled)
    return _launch(*settings, out)


def _launch(
    tokens: Tensor,
    logits: Tensor,
    inverse_temperature: float,
    top_k: int,
    top_p: float,
    bias: Tensor | None,
    seeds: Tensor | None,
    seed: int,
    steps: Tensor | None,
    step: int,
    slots: Tensor | None,
    lengths: Tensor | None,
    backend: str | None,
    out: Tensor | None = None,
) -> Tensor:
    backend = config.choose_backend(tokens.device, backend)
    at = _checks.step_for(backend, steps, step)
    if backend != "torch":
        filled = torch.empty_like(tokens) if out is None else out
        settings = (
            tokens, logits, filled[:, None], inverse_temperature, top_k, top_p, bias, seeds, seed, at, slots, lengths,
        )  # fmt: skip
        if backend == "cpu":
            _checks.on_cpu("tokens", tokens)
            if out is None:
                _native.advise_huge_pages(filled)
            code, index = _native.masked_mode(*settings)
        else:
            code, index = _triton.run("masked_mode", tokens, *settings)
    else:
        filled, code, index = _reference.masked_mode(
            tokens,
            logits.detach(),
            bias=None if bias is None else bias.detach(),
            inverse_temperature=inverse_temperature,
            top_k=top_k or None,
            top_p=top_p,
            seeds=expand_seed(seed & 0xFFFFFFFFFFFFFFFF, 1, tokens.device) if seeds is None else seeds,
            step=at,
            slots=slots,
            lengths=lengths,
        )
        if out is not None and code == _native.OK:
            filled = out.copy_(filled)
    if code != _native.OK:
        _masked.raise_status(code, index, tokens, logits, bias, None, None, slots, 1)
    return filled


def _fake(
    tokens: Tensor,
    logits: Tensor,
    inverse_temperature: float,
    top_k: int,
    top_p: float,
    bias: Tensor | None,
    seeds: Tensor | None,
    seed: int,
    steps: Tensor | None,
    step: int,
    slots: Tensor | None,
    lengths: Tensor | None,
    backend: str | None,
) -> Tensor:
    return torch.empty_like(tokens)


_op = _library.register(
    "masked_mode(Tensor tokens, Tensor logits, float inverse_temperature, SymInt top_k, float top_p, Tensor? bias, "
    "Tensor? seeds, int seed, Tensor? steps, SymInt step, Tensor? slots, Tensor? lengths, str? backend) -> Tensor",
    _launch,
    _fake,
)
