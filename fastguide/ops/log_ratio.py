"""What a guided proposal costs in weight: log p - log q of its children, p the model's step and q the guided one.

A sampler that draws children from a shifted law keeps its target by adding this to their log-weights. No tensor of the
size of the logits or of the noise is made, and a row that several children share is read once. Sums are float64 in a
fixed order, so the same on every backend and thread count.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastguide import config
from fastguide.deferred import deferring
from fastguide.ops import _arrays, _checks, _gaussian, _library, _masked, _native, _triton
from fastguide.ops._gaussian import Coefficient
from fastguide.reference import log_ratio as _reference


def gaussian_log_ratio(
    children: Tensor,
    x: Tensor,
    prediction: Tensor,
    *,
    x_coefficient: Coefficient,
    prediction_coefficient: Coefficient,
    sigma: Coefficient,
    shift: Tensor,
    shift_coefficient: Coefficient = 1.0,
    ancestors: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Return ``log N(child; mu, sigma^2) - log N(child; mu + shift_coefficient * shift[a], sigma^2)``.

    ``mu = x_coefficient * x[a] + prediction_coefficient * prediction[a]``; arguments as those of
    :func:`fastguide.ops.gaussian_step.gaussian_step`, which drew the children from the second law. NaN propagates.

    Args:
        children: ``[P, M, ...]`` float32.
        x: ``[U, ...]`` float32.
        prediction: the shape of ``x``, float32, float16 or bfloat16.
        x_coefficient: a number or ``[G]``, one a group, or a tensor of one for all; groups are contiguous and of equal
            size, G divides P.
        prediction_coefficient: a number or ``[G]``.
        sigma: a number or ``[G]``, above 0: without noise the two laws have no ratio.
        shift: the shape of ``x``, float32, float16 or bfloat16.
        shift_coefficient: a number or ``[G]``.
        ancestors: ``[P]`` int64 or int32, the row of ``x`` that each particle continues; default ``0..U-1``.
        backend: ``"cpu"``, ``"triton"`` or ``"torch"``; default as :func:`fastguide.config.choose_backend` says.

    Returns:
        ``[P, M]`` float64.

    Raises:
        ValueError: shapes or settings do not fit; a coefficient is not finite, or sigma is not positive.
        IndexError: an ancestor is out of range.
        TypeError: a dtype is not one of those above.
    """
    if type(x) is not Tensor and _arrays.is_foreign(x):
        return _arrays.in_torch(gaussian_log_ratio, x, locals())
    _gaussian.check_rows("x", x, None)
    _gaussian.check_rows("prediction", prediction, x)
    _gaussian.check_rows("shift", shift, x)
    ancestors = _masked.check_indices("ancestors", ancestors, None, x)
    particles = x.shape[0] if ancestors is None else ancestors.shape[0]
    _check_children(children, particles, x.shape[1:], x, torch.float32)
    coefficients, numbers = _gaussian.check_coefficients(
        (x_coefficient, prediction_coefficient, shift_coefficient, sigma), None, x, "above 0"
    )
    if coefficients is not None and (coefficients.shape[1] == 0 or particles % coefficients.shape[1] != 0):
        raise ValueError(
            f"sigma: expected one a group, with as many to divide {particles} particles, got {coefficients.shape[1]}"
        )
    launch = _gaussian_op if torch.compiler.is_compiling() else _launch_gaussian
    ratios: Tensor = launch(children, x, prediction, shift, coefficients, numbers, ancestors, backend)
    return ratios


def masked_log_ratio(
    tokens: Tensor,
    children: Tensor,
    logits: Tensor,
    shift: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    bias: Tensor | None = None,
    ancestors: Tensor | None = None,
    lengths: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Return ``log p - log q`` of the tokens that a masked step revealed.

    At a position where the parent holds the mask and the child does not, ``p = softmax(y)`` with
    ``y = (logits + bias) / temperature``, cut by ``top_k`` and ``top_p``, and ``q = softmax(y + shift)``. The ratio there is
    ``log sum_v p_v e^shift_v - shift_token``, from the same integer weights as the draws; the positions of a child add
    up. Which positions are revealed is no part of it.

    Args:
        tokens: ``[U, L]`` int64 or int32, the states before the step; the value ``V`` is the mask.
        children: ``[P, M, L]`` of the dtype of ``tokens``.
        logits: ``[U, L, V]`` float32, float16 or bfloat16; ``-inf`` forbids. Read at revealed positions only.
        shift: ``[U, L, V]`` float32; ``-inf`` forbids.
        temperature: positive.
        top_k: as in :func:`fastguide.ops.masked_step.masked_step`.
        top_p: likewise.
        bias: ``[V]`` or ``[L, V]``, added to the logits in float32 before the temperature; ``-inf`` forbids.
        ancestors: ``[P]`` int64 or int32, the row of ``tokens`` that each particle continues; default ``0..U-1``.
        lengths: ``[G]`` int64 or int32, one a group of ``P / G`` consecutive particles; positions from the length on
            are padding and add nothing.
        backend: ``"cpu"``, ``"triton"`` or ``"torch"``; default as :func:`fastguide.config.choose_backend` says.

    Returns:
        ``[P, M]`` float64.

    Raises:
        ValueError: shapes or settings do not fit; a token is outside ``0..V``; a row that is read holds NaN, +inf or a
            value above 1e9, with or without the shift, or forbids every token; a child holds a token that either law
            forbids.
        IndexError: an ancestor is out of range.
        TypeError: a dtype is not one of those above.
    """
    if type(tokens) is not Tensor and _arrays.is_foreign(tokens):
        return _arrays.in_torch(masked_log_ratio, tokens, locals())
    inverse_temperature = _masked.check_temperature(temperature)
    if inverse_temperature == 0:
        raise ValueError("temperature: expected a positive number, got 0, at which there are no probabilities")
    most, share = _masked.check_truncation(top_k, top_p)
    tokens, logits = _masked.check_states(tokens, logits)
    bias = _masked.check_bias(bias, logits)
    ancestors = _masked.check_indices("ancestors", ancestors, None, tokens)
    particles = tokens.shape[0] if ancestors is None else ancestors.shape[0]
    _check_children(children, particles, tokens.shape[1:], tokens, tokens.dtype)
    shift = _masked.check_shift(shift, logits, temperature)
    lengths = _masked.check_indices("lengths", lengths, None, tokens)
    if lengths is not None:
        if len(lengths) == 0 or particles % len(lengths) != 0:
            raise ValueError(
                f"lengths: expected [G] with G dividing the {particles} particles, got {list(lengths.shape)}"
            )
        lengths = lengths.to(torch.int64).clamp(0, tokens.shape[1])
    launch = _masked_op if torch.compiler.is_compiling() else _launch_masked
    ratios: Tensor = launch(
        tokens, children, logits, shift, inverse_temperature, most, share, bias, ancestors, lengths, backend
    )
    return ratios


def _check_children(children: Tensor, particles: int, trailing: torch.Size, like: Tensor, dtype: torch.dtype) -> None:
    if children.dtype != dtype:
        raise TypeError(f"children: expected {dtype}, got {children.dtype}")
    if children.dim() != 2 + len(trailing) or children.shape[0] != particles or children.shape[2:] != trailing:
        raise ValueError(
            f"children: expected shape [P, M, ...] = [{', '.join(map(str, (particles, 'M', *trailing)))}], got "
            f"{list(children.shape)}"
        )
    if children.device != like.device:
        raise ValueError(f"children: on {children.device}, but the states are on {like.device}")


def _launch_gaussian(
    children: Tensor,
    x: Tensor,
    prediction: Tensor,
    shift: Tensor,
    coefficients: Tensor | None,
    numbers: list[Any],
    ancestors: Tensor | None,
    backend: str | None,
) -> Tensor:
    if not deferring():
        _gaussian.refuse_coefficients(coefficients, "above 0")
    backend = config.choose_backend(x.device, backend)
    numbers = _gaussian.coefficients_for(backend, numbers, "above 0")
    if backend != "torch":
        ratios = _empty_ratios(children)
        given = (
            _native.plain(children),
            _gaussian.laid_out(x),
            _gaussian.laid_out(prediction),
            _gaussian.laid_out(shift),
            ratios,
            coefficients,
            numbers,
            ancestors,
        )
        if backend == "cpu":
            _checks.on_cpu("x", x)
            code, index = _native.gaussian_log_ratio(*given)
        else:
            code, index = _triton.run("gaussian_log_ratio", x, *given, module="log_ratio")
    else:
        ratios, code, index = _reference.gaussian_log_ratio(
            children.detach(),
            x.detach(),
            prediction.detach(),
            coefficients=x.new_tensor(numbers)[:, None] if coefficients is None else coefficients,
            shift=shift.detach(),
            ancestors=ancestors,
        )
    if code != _native.OK:
        _gaussian.raise_status(code, index, x.shape[0], ancestors, None, children.shape[0], children.shape[1])
    return ratios


def _launch_masked(
    tokens: Tensor,
    children: Tensor,
    logits: Tensor,
    shift: Tensor,
    inverse_temperature: float,
    top_k: int,
    top_p: float,
    bias: Tensor | None,
    ancestors: Tensor | None,
    lengths: Tensor | None,
    backend: str | None,
) -> Tensor:
    backend = config.choose_backend(tokens.device, backend)
    if backend != "torch":
        ratios = _empty_ratios(children)
        given = (
            tokens,
            children.contiguous(),
            logits,
            shift,
            ratios,
            inverse_temperature,
            top_k,
            top_p,
            bias,
            ancestors,
            lengths,
        )
        if backend == "cpu":
            _checks.on_cpu("tokens", tokens)
            code, index = _native.masked_log_ratio(*given)
        else:
            code, index = _triton.run("masked_log_ratio", tokens, *given, module="log_ratio")
    else:
        ratios, code, index = _reference.masked_log_ratio(
            tokens,
            children,
            logits.detach(),
            shift.detach(),
            inverse_temperature=inverse_temperature,
            top_k=top_k or None,
            top_p=top_p,
            bias=None if bias is None else bias.detach(),
            ancestors=ancestors,
            lengths=lengths,
        )
    if code != _native.OK:
        _raise(code, index, tokens, children, logits, ancestors)
    return ratios


def _raise(code: int, index: int, tokens: Tensor, children: Tensor, logits: Tensor, ancestors: Tensor | None) -> None:
    """Raise the error that a status of the masked kernel stands for (the index as ``csrc/cpu/log_ratio.h`` says)."""
    states, length, vocab = logits.shape
    particles, rows = children.shape[0], states * length
    if code == _native.OUT_OF_MEMORY:
        raise MemoryError("masked_log_ratio: no memory for its workspace; use fewer states a call")
    if code == _native.OUT_OF_RANGE:
        if index < particles and ancestors is not None:
            raise IndexError(f"ancestors[{index}] is {int(ancestors[index])}, outside the {states} rows of tokens")
        name, tensor, at = "tokens", tokens, index - particles
        if at >= rows:
            name, tensor, at = "children", children, at - rows
        raise ValueError(f"{name}{_at(at, tensor)}; expected 0 to {vocab - 1}, or {vocab} for the mask")
    if index >= 2 * rows:
        raise ValueError(
            f"children{_at(index - 2 * rows, children)}, a token that the law of its step never draws; pass the logits, "
            "bias and shift that the children were drawn with"
        )
    u, at = divmod(index // 2, length)
    what = "logits with the shift" if index % 2 else "logits"
    if code == _native.DEGENERATE:
        raise ValueError(f"{what}[{u}, {at}] forbid every token (all -inf or below -1e9); allow at least one")
    raise ValueError(
        f"{what}[{u}, {at}] hold NaN, +inf or a value above 1e9; after bias, temperature and shift a logit must be -inf "
        "or a number up to 1e9"
    )


def _at(flat: int, x: Tensor) -> str:
    where = []
    for size in reversed(x.shape):
        flat, i = divmod(flat, size)
        where.append(i)
    index = tuple(reversed(where))
    return f"[{', '.join(map(str, index))}] is {int(x[index])}"


def _empty_ratios(children: Tensor) -> Tensor:
    return children.new_empty(children.shape[:2], dtype=torch.float64)


def _fake_gaussian(
    children: Tensor,
    x: Tensor,
    prediction: Tensor,
    shift: Tensor,
    coefficients: Tensor | None,
    numbers: list[float],
    ancestors: Tensor | None,
    backend: str | None,
) -> Tensor:
    return _empty_ratios(children)


def _fake_masked(
    tokens: Tensor,
    children: Tensor,
    logits: Tensor,
    shift: Tensor,
    inverse_temperature: float,
    top_k: int,
    top_p: float,
    bias: Tensor | None,
    ancestors: Tensor | None,
    lengths: Tensor | None,
    backend: str | None,
) -> Tensor:
    return _empty_ratios(children)


_gaussian_op = _library.register(
    "gaussian_log_ratio(Tensor children, Tensor x, Tensor prediction, Tensor shift, Tensor? coefficients, "
    "float[] numbers, Tensor? ancestors, str? backend) -> Tensor",
    _launch_gaussian,
    _fake_gaussian,
)
_masked_op = _library.register(
    "masked_log_ratio(Tensor tokens, Tensor children, Tensor logits, Tensor shift, float inverse_temperature, "
    "SymInt top_k, float top_p, Tensor? bias, Tensor? ancestors, Tensor? lengths, str? backend) -> Tensor",
    _launch_masked,
    _fake_masked,
)
