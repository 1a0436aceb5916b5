"""Selection: from log-weights to ancestors, in one pass over memory and in integers."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastguide import config
from fastguide.ops import _arrays, _checks, _library, _native, _triton
from fastguide.reference import select as _reference
from fastguide.reference.philox import expand_seed

# Prototypes: an output made from a tensor of its dtype costs half of torch.empty with a dtype, a good part of a small
# call.
_INT32 = torch.empty(0, dtype=torch.int32, device="cpu")
_FLOAT64 = torch.empty((), dtype=torch.float64, device="cpu")
_SMALL = 2**16
"""Ancestors that no huge page can hold."""
_RULE_CODES = {name: code for code, name in enumerate(_checks.RULES)}


class Selection(NamedTuple):
    """What `select` returns; ``[...]`` is ``[]``, ``[G]`` or ``[G, P]``.

    Attributes:
        ancestors: ``[..., K]`` int32, indices in ``[0, M)`` within the group (and parent).
        log_mean_weight: ``[...]`` float64, the logarithm of the mean weight; ``-inf`` where every weight is zero.
        ess: ``[...]`` float64, the effective sample size ``(sum w)^2 / sum w^2`` in ``[1, M]``; 0 where every weight is
            zero.
    """

    ancestors: Tensor
    log_mean_weight: Tensor
    ess: Tensor


def select(
    log_weights: Tensor,
    k: int | None = None,
    *,
    rule: str = "systematic",
    order: str = "sorted",
    seed: int | Tensor = 0,
    step: int | Tensor = 0,
    degenerate: str = "raise",
    out: Selection | None = None,
    backend: str | None = None,
) -> Selection:
    """Draw ``k`` ancestors from each group of ``M`` log-weights.

    Weights become integers, and all that follows is integer arithmetic: the same seed gives the same ancestors on every
    backend, SIMD level and number of threads, and a group's result depends on its own weights and seed only. Counts of
    systematic resampling are the floor or the ceiling of ``k w_n / sum w``, and sum to ``k``, at any ``M`` and offset.

    Args:
        log_weights: ``[M]``, ``[G, M]`` or ``[G, P, M]`` (P parents a group, each selected on its own), float32 or
            float64, natural logarithms, unnormalised. Values below -1e9 are weights of zero, which no rule ever
            selects.
        k: number of draws, ``M`` unless given.
        rule: ``"systematic"``, ``"stratified"``, ``"multinomial"``, ``"residual"``: unbiased, the expected count of
            item n is ``k w_n / sum w``. ``"argmax"`` (``k`` times the best), ``"topk"``, ``"gumbel_topk"`` (Gumbel
            noise added first: draws without replacement): descending by score, ties to the lowest index, biased.
        order: ``"sorted"``: increasing indices (descending scores for the last three rules). ``"slots"``, for ``k = M``
            only: an item that is selected keeps its own slot, and the others, in increasing order, take the surplus
            copies in increasing order of ancestor, so that moving particles in place writes few of them.
        seed: a whole number in [0, 2^64), or an int64 tensor of no dimension, from which each group derives its own; or
            an int64 tensor ``[G]``, used as it is.
        step: selects another stream of random numbers, in [0, 2^28); or an int64 tensor of one on the device, which the
            kernels of a GPU read themselves, unchecked, so that a captured graph draws anew at each replay.
        degenerate: what to do where every weight of a row is zero, or where ``"topk"`` or ``"gumbel_topk"`` find fewer
            than ``k`` items of nonzero weight. ``"raise"``; or ``"keep"``: the former get ancestor ``i mod M`` in slot
            ``i``, log-mean-weight ``-inf`` and ESS 0, the latter repeat the items they have from the best on.
        out: a `Selection` of contiguous tensors to write and return, of the shapes and dtypes of the result; they must
            not overlap ``log_weights`` or each other. After an error they hold anything.
        backend: ``"cpu"``, ``"triton"``, ``"cuda"`` or ``"torch"`` (the reference); None chooses by device and
            `fastguide.config`. A rule that ``"cuda"`` has no kernel for is Triton's.

    Returns:
        A `Selection`. Precision: log-mean-weight within 3e-7 (float32 log-weights) or 1.5e-11 (float64); ESS too large
        by at most a relative 2^-17, usually 2^-24, and exactly ``M`` for equal weights.

    Raises:
        ValueError: a log-weight that is NaN, +inf or above 1e9 (its index is named), a wrong shape, ``k``, rule or
            order; a tensor of ``out`` that cannot be written as it is.
        TypeError: not a float32 or float64 tensor; a seed that is neither a whole number nor int64; a wrong dtype in
            ``out``.
        DegenerateWeights: see ``degenerate``; the exception names the groups.
    """
    # What is small and usual takes 2 us in all; the checks below alone would take as long.
    if not torch.compiler.is_compiling():
        small: Selection | None = _native.select_small(
            Selection, log_weights, k, rule, order, seed, step, degenerate, out, backend
        )
        if small is not None:
            return small
    if not isinstance(log_weights, Tensor) or log_weights.dtype not in _checks.FLOATS:
        if _arrays.is_foreign(log_weights):
            return _arrays.in_torch(select, log_weights, locals())
        _checks.float_tensor("log_weights", log_weights)
    shape = log_weights.shape
    if not 1 <= len(shape) <= 3 or 0 in shape:
        raise ValueError(
            f"log_weights: expected [M], [G, M] or [G, P, M] with at least one of each, got {tuple(shape)}"
        )
    m = shape[-1]
    k = m if k is None else _checks.count("k", k)
    if rule not in _RULE_CODES:
        _checks.choice("rule", rule, _checks.RULES)
    if order != "sorted":
        _checks.choice("order", order, ("sorted", "slots"))
        if k != m:
            raise ValueError(f'order: "slots" needs k = M, got k = {k} and M = {m}; use order="sorted"')
    if k > m and rule in _checks.RANKED:
        raise ValueError(f'k: rule="{rule}" takes distinct items, but k = {k} exceeds M = {m}')
    if degenerate != "raise":
        _checks.choice("degenerate", degenerate, ("raise", "keep"))
    if type(step) is int and 0 <= step < 2**28:
        steps, at = None, step
    else:
        steps, at = _checks.step_or_tensor(step, log_weights)
    if type(seed) is int and 0 <= seed < 2**63:
        seeds, number = None, seed
    else:
        seeds, number = _checks.seed(seed, shape[0] if len(shape) > 1 else 1, log_weights.device)
    if out is not None:
        _check_out(out, log_weights, k)
    keep = degenerate == "keep"
    if torch.compiler.is_compiling():
        drawn = _op(log_weights, k, rule, order, seeds, number, steps, at, keep, backend)
        return Selection(*drawn) if out is None else _write(out, drawn)
    return _launch(log_weights, k, rule, order, seeds, number, steps, at, keep, backend, out)


def _check_out(out: object, log_weights: Tensor, k: int) -> None:
    if not isinstance(out, Selection):
        raise TypeError(f"out: expected a Selection of three tensors, got {type(out).__name__}")
    ancestors, log_mean_weight, ess = out
    lead = log_weights.shape[:-1]
    _checks.output("out.ancestors", ancestors, (*lead, k), torch.int32, log_weights)
    _checks.output("out.log_mean_weight", log_mean_weight, lead, torch.float64, log_weights)
    _checks.output("out.ess", ess, lead, torch.float64, log_weights)


def _write(out: Selection, drawn: tuple[Tensor, Tensor, Tensor]) -> Selection:
    for target, x in zip(out, drawn, strict=True):
        target.copy_(x)
    return out


def _launch(
    log_weights: Tensor,
    k: int,
    rule: str,
    order: str,
    seeds: Tensor | None,
    seed: int,
    steps: Tensor | None,
    step: int,
    keep: bool,
    backend: str | None,
    out: Selection | None = None,
) -> Selection:
    shape = log_weights.shape
    backend = config.choose_backend(log_weights.device, backend, cuda=True)
    at = step if steps is None else _checks.step_for(backend, steps, step)
    if backend != "torch":
        x = (log_weights.resolve_neg() if log_weights.is_neg() else log_weights).contiguous()
        if backend == "cpu":
            _checks.on_cpu("log_weights", log_weights)
            out = _allocate(shape, k) if out is None else out
            code, index = _native.select(x, k, _RULE_CODES[rule], order == "slots", seeds, seed, at, *out)
        else:
            out = Selection(*_fake(x, k)) if out is None else out
            code, index = _triton.run(
                "select",
                x,
                x,
                k,
                _RULE_CODES[rule],
                order == "slots",
                seeds,
                seed,
                at,
                *out,
                keep=keep,
                backend=backend,
            )
        if code != _native.OK:
            if code == _native.INVALID_VALUE:
                _checks.refuse_element("log_weights", log_weights, index)
            if code == _native.DEGENERATE and not keep:
                _checks.raise_degenerate(log_weights, rule, k)
            if code == _native.OUT_OF_MEMORY:
                raise MemoryError(f"select: no memory for its workspace of rows of {shape[-1]} items; split them")
        return out
    refused = _checks.first_refused(log_weights)
    if refused is not None:
        _checks.refuse_element("log_weights", log_weights, refused)
    if not keep and _checks.lacking_rows(log_weights, rule, k):
        _checks.raise_degenerate(log_weights, rule, k)
    rows = log_weights.detach().reshape(_native.rows_of(shape))
    if seeds is None:
        seeds = expand_seed(seed, len(rows), rows.device)
    ancestors, log_mean_weight, ess = _reference.select(rows, k, rule, order, seeds, at)
    lead = shape[:-1]
    drawn = ancestors.reshape(*lead, k), log_mean_weight.reshape(lead), ess.reshape(lead)
    return Selection(*drawn) if out is None else _write(out, drawn)


def _allocate(shape: torch.Size, k: int) -> Selection:
    if len(shape) == 1:
        ancestors, log_mean_weight = _INT32.new_empty(k), torch.empty_like(_FLOAT64)
    else:
        lead = shape[:-1]
        ancestors, log_mean_weight = _INT32.new_empty(*lead, k), _FLOAT64.new_empty(lead)
    if k > _SMALL or len(shape) > 1:
        _native.advise_huge_pages(ancestors)
    return Selection(ancestors, log_mean_weight, torch.empty_like(log_mean_weight))


def _fake(log_weights: Tensor, k: int, *settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    lead = log_weights.shape[:-1]
    return (
        log_weights.new_empty((*lead, k), dtype=torch.int32),
        log_weights.new_empty(lead, dtype=torch.float64),
        log_weights.new_empty(lead, dtype=torch.float64),
    )


_op = _library.register(
    "select(Tensor log_weights, SymInt k, str rule, str order, Tensor? seeds, int seed, Tensor? steps, SymInt step, bool keep, "
    "str? backend) -> (Tensor, Tensor, Tensor)",
    _launch,
    _fake,
)
