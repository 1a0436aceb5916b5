"""The compiled kernels: the only file that touches data pointers."""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Size, Tensor

from fastguide import config
from fastguide.errors import BackendUnavailable
from fastguide.reference.philox import Stream


class _Missing:
    """Stands for an extension that cannot be imported, so that `fastguide doctor` can still say so."""

    __file__ = None

    def __init__(self, reason: ImportError) -> None:
        self._reason = reason

    def __getattr__(self, name: str) -> Any:
        raise BackendUnavailable(
            f"fastguide._cpu is not built ({self._reason}); run `pip install .` in a checkout, or reinstall fastguide"
        )


try:
    import fastguide._cpu as _cpu
except ImportError as error:
    _cpu = _Missing(error)  # type: ignore[assignment]

OK, INVALID_VALUE, DEGENERATE, OUT_OF_RANGE, OUT_OF_MEMORY = range(5)

if (_level := config.simd_level()) is not None:
    _cpu.force_level(_level)


def _empty_strided(size: tuple[int, ...], stride: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return torch.empty_strided(size, stride, dtype=dtype, device="cpu")


_built = getattr(_cpu, "__file__", None) is not None
if _built and (_context := config.backend_of_context()) is not None:
    # The function of torch's generated code leaves out the dispatcher, and so half the time.
    _guards = getattr(torch._C._dynamo, "guards", None)
    _cpu.use_torch(Tensor, getattr(_guards, "_empty_strided_cpu", _empty_strided), torch.int32, torch.float64, _context)


def _warn_if_stale() -> None:
    """Say so where the sources beside this package, as in an editable installation, are newer than the extension."""
    extension: str | None = getattr(_cpu, "__file__", None)
    if extension is None:
        return
    sources = Path(__file__).parents[2] / "csrc"
    newest = max((path.stat().st_mtime for path in sources.glob("*/*")), default=0.0)
    if newest > Path(extension).stat().st_mtime:
        warnings.warn(
            f"fastguide._cpu is older than its sources in {sources}; run `pip install -e .` there",
            RuntimeWarning,
            stacklevel=2,
        )


_warn_if_stale()


def plain(x: Tensor) -> Tensor:
    """Return ``x`` with the bytes in memory that it stands for, row after row."""
    if x.is_conj():
        x = x.resolve_conj()
    if x.is_neg():
        x = x.resolve_neg()
    return x.contiguous()


_HUGE_BYTES = 2**22


def advise_huge_pages(*fresh: Tensor) -> None:
    """Tell the system of tensors just allocated that are large and about to be written; see ``csrc/cpu/pages.h``."""
    for x in fresh:
        if x.nbytes >= _HUGE_BYTES:
            _cpu.advise_huge_pages(x.data_ptr(), x.nbytes)


def move(
    sources: Sequence[Tensor], targets: Sequence[Tensor], ancestors: Tensor, rows: int, in_place: bool
) -> tuple[int, int]:
    """Gather rows; see ``csrc/cpu/move.h``. ``ancestors`` is ``[groups, draws]`` int32 or int64."""
    groups, draws = ancestors.shape
    count = max(1, groups * rows)
    addresses = [s.data_ptr() for s in sources]
    return _cpu.move(
        addresses,
        addresses if in_place else [t.data_ptr() for t in targets],
        [s.nbytes // count for s in sources],
        ancestors.data_ptr(),
        ancestors.dtype == torch.int64,
        groups,
        rows,
        draws,
        in_place,
        config.threads(),
    )


_STATE_TYPES = {torch.float32: 0, torch.float64: 1, torch.uint8: 2, torch.int32: 3, torch.int64: 4}


def evaluate(
    kind: int, states: Tensor, parameters: Sequence[Tensor], settings: Sequence[int], out: Tensor
) -> tuple[int, int]:
    """Write the values ``out`` ``[rows]`` of states ``[rows, columns]``, all contiguous; see ``csrc/cpu/evaluate.h``."""
    rows, columns = states.shape
    return _cpu.evaluate(
        kind,
        states.data_ptr(),
        _STATE_TYPES[states.dtype],
        rows,
        columns,
        [p.data_ptr() for p in parameters],
        settings,
        out.data_ptr(),
        config.threads(),
    )


def overlapping(written: Iterable[Tensor], inputs: Iterable[Tensor | None]) -> bool:
    """Say whether memory to be written meets that of an input or of another tensor to be written.

    What counts is the memory between the first and the last element.
    """
    spans = [_span(x) for x in written if x.numel()]
    others = [_span(x) for x in inputs if x is not None and x.numel()]
    ordered = sorted(spans)
    if any(first[1] > second[0] for first, second in itertools.pairwise(ordered)):
        return True
    return any(begin < last and first < end for begin, end in spans for first, last in others)


def _span(x: Tensor) -> tuple[int, int]:
    last = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True)) + 1
    return x.data_ptr(), x.data_ptr() + last * x.element_size()


def gaussian_step(
    x: Tensor,
    prediction: Tensor,
    shift: Tensor | None,
    children: Tensor,
    coefficients: Tensor | None,
    numbers: Sequence[float],
    ancestors: Tensor | None,
    seeds: Tensor | None,
    seed: int,
    step: int,
    slots: Tensor | None,
) -> tuple[int, int]:
    """Write ``children`` ``[P, M, ...]``; see ``csrc/cpu/gaussian_step.h``. Rows of the inputs are contiguous."""
    particles, branch = children.shape[:2]
    return _cpu.gaussian_step(
        x.data_ptr(),
        x.stride(0),
        prediction.data_ptr(),
        _LOGIT_TYPES[prediction.dtype],
        prediction.stride(0),
        _address(shift),
        0 if shift is None else _LOGIT_TYPES[shift.dtype],
        0 if shift is None else shift.stride(0),
        children.data_ptr(),
        _address(coefficients),
        numbers,
        _address(ancestors),
        ancestors is not None and ancestors.dtype == torch.int64,
        _address(slots),
        slots is not None and slots.dtype == torch.int64,
        _address(seeds),
        seed & 0xFFFFFFFFFFFFFFFF,
        x.shape[0],
        particles,
        1 if seeds is None else len(seeds),
        branch,
        math.prod(x.shape[1:]),
        step,
        config.threads(),
    )


_LOGIT_TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


def masked_step(
    tokens: Tensor,
    logits: Tensor,
    children: Tensor,
    reveal_probability: float,
    counts: Tensor | None,
    count: int,
    confidence: bool,
    remask_probability: float,
    frozen: Tensor | None,
    inverse_temperature: float,
    top_k: int,
    top_p: float,
    bias: Tensor | None,
    shift: Tensor | None,
    ancestors: Tensor | None,
    seeds: Tensor | None,
    seed: int,
    step: int,
    slots: Tensor | None,
    lengths: Tensor | None,
    stream: Stream = Stream.TOKENS,
) -> tuple[int, int]:
    """Write ``children`` ``[P, M, L]``; see ``csrc/cpu/masked.h``. All contiguous, ``logits`` along its last axis."""
    states, length, vocab = logits.shape
    particles, branch, _ = children.shape
    state_stride, logits_stride, _ = logits.stride()
    shift_state_stride, shift_stride, _ = (0, 0, 0) if shift is None else shift.stride()
    kernel = _cpu.masked_step if stream == Stream.TOKENS else _cpu.masked_mode
    return kernel(
        tokens.data_ptr(),
        tokens.dtype == torch.int64,
        children.data_ptr(),
        logits.data_ptr(),
        _LOGIT_TYPES[logits.dtype],
        state_stride,
        logits_stride,
        _address(bias),
        0 if bias is None or bias.dim() == 1 else vocab,
        _address(shift),
        shift_state_stride,
        shift_stride,
        _address(ancestors),
        ancestors is not None and ancestors.dtype == torch.int64,
        _address(slots),
        slots is not None and slots.dtype == torch.int64,
        _address(seeds),
        seed & 0xFFFFFFFFFFFFFFFF,
        _address(lengths),
        states,
        particles,
        1 if seeds is None else len(seeds),
        branch,
        length,
        vocab,
        reveal_probability,
        _address(counts),
        count,
        confidence,
        remask_probability,
        _address(frozen),
        0 if frozen is None or frozen.dim() == 1 else length,
        inverse_temperature,
        top_k,
        top_p,
        step,
        stream,
        config.threads(),
    )


def gaussian_log_ratio(
    children: Tensor,
    x: Tensor,
    prediction: Tensor,
    shift: Tensor,
    ratios: Tensor,
    coefficients: Tensor | None,
    numbers: Sequence[float],
    ancestors: Tensor | None,
) -> tuple[int, int]:
    """Write ``ratios`` ``[P, M]``; see ``csrc/cpu/log_ratio.h``. Children are contiguous, as are rows of the rest."""
    particles, branch = children.shape[:2]
    return _cpu.gaussian_log_ratio(
        children.data_ptr(),
        x.data_ptr(),
        x.stride(0),
        prediction.data_ptr(),
        _LOGIT_TYPES[prediction.dtype],
        prediction.stride(0),
        shift.data_ptr(),
        _LOGIT_TYPES[shift.dtype],
        shift.stride(0),
        ratios.data_ptr(),
        _address(coefficients),
        numbers,
        _address(ancestors),
        ancestors is not None and ancestors.dtype == torch.int64,
        x.shape[0],
        particles,
        1 if coefficients is None else coefficients.shape[1],
        branch,
        math.prod(x.shape[1:]),
        config.threads(),
    )


def masked_log_ratio(
    tokens: Tensor,
    children: Tensor,
    logits: Tensor,
    shift: Tensor,
    ratios: Tensor,
    inverse_temperature: float,
    top_k: int,
    top_p: float,
    bias: Tensor | None,
    ancestors: Tensor | None,
    lengths: Tensor | None,
) -> tuple[int, int]:
    """Write ``ratios`` ``[P, M]``; see ``csrc/cpu/log_ratio.h``. Contiguous but for logits and shift: their last axis."""
    states, length, vocab = logits.shape
    particles, branch, _ = children.shape
    return _cpu.masked_log_ratio(
        tokens.data_ptr(),
        children.data_ptr(),
        tokens.dtype == torch.int64,
        logits.data_ptr(),
        _LOGIT_TYPES[logits.dtype],
        logits.stride(0),
        logits.stride(1),
        _address(bias),
        0 if bias is None or bias.dim() == 1 else vocab,
        shift.data_ptr(),
        shift.stride(0),
        shift.stride(1),
        ratios.data_ptr(),
        _address(ancestors),
        ancestors is not None and ancestors.dtype == torch.int64,
        _address(lengths),
        states,
        particles,
        1 if lengths is None else len(lengths),
        branch,
        length,
        vocab,
        inverse_temperature,
        top_k,
        top_p,
        config.threads(),
    )


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
    step: int,
    slots: Tensor | None,
    lengths: Tensor | None,
) -> tuple[int, int]:
    """Write ``filled`` ``[U, 1, L]``: a step that reveals everything, with draws from a stream of its own."""
    return masked_step(
        tokens, logits, filled, 1.0, None, -1, False, 0.0, None, inverse_temperature, top_k, top_p, bias, None, None,
        seeds, seed, step, slots, lengths, Stream.VALUE,
    )  # fmt: skip


def unique(
    rows: Tensor, representatives: Tensor, inverse: Tensor, counts: Tensor, hash_mask: int = 2**64 - 1
) -> tuple[int, int, int]:
    """Name equal rows; see ``csrc/cpu/unique.h``. Also returns the number of distinct rows."""
    count = len(rows)
    return _cpu.unique(
        rows.data_ptr(),
        count,
        rows.nbytes // count,
        hash_mask,
        representatives.data_ptr(),
        inverse.data_ptr(),
        counts.data_ptr(),
        config.threads(),
    )


def rows_of(shape: Size) -> tuple[int, int, int]:
    """Return groups, parents and items of ``[M]``, ``[G, M]`` or ``[G, P, M]``."""
    if len(shape) == 1:
        return 1, 1, shape[0]
    if len(shape) == 2:
        return shape[0], 1, shape[1]
    groups, parents, items = shape
    return groups, parents, items


def _not_small(*arguments: object) -> None:
    return None


select_small: Callable[..., Any] = _cpu.select_small if _built else _not_small
"""All of `fastguide.ops.select` for one short row where nothing is unusual, or None: see ``csrc/bind/register_select.cpp``."""


def select(
    log_weights: Tensor,
    k: int,
    rule: int,
    slots: bool,
    seeds: Tensor | None,
    seed: int,
    step: int,
    ancestors: Tensor,
    log_mean_weight: Tensor,
    ess: Tensor,
) -> tuple[int, int]:
    """Select in each row of contiguous ``[M]``, ``[G, M]`` or ``[G, P, M]``; see ``csrc/cpu/select.h``."""
    shape = log_weights.shape
    groups, parents, items = (1, 1, shape[0]) if len(shape) == 1 else rows_of(shape)
    if seeds is not None:
        seeds = seeds.contiguous()
    return _cpu.select(
        log_weights.data_ptr(),
        log_weights.dtype is torch.float64,
        groups,
        parents,
        items,
        k,
        rule,
        slots,
        0 if seeds is None else seeds.data_ptr(),
        seed,
        step,
        ancestors.data_ptr(),
        log_mean_weight.data_ptr(),
        ess.data_ptr(),
        config.threads(),
    )


def reweight_select(
    inputs: Sequence[Tensor | None],
    betas: Tensor | None,
    beta: float,
    previous_betas: Tensor | None,
    previous_beta: float,
    rule: int,
    ess_threshold: float,
    seeds: Tensor | None,
    seed: int,
    step: int,
    outputs: Sequence[Tensor],
    value: tuple[int, Tensor, Sequence[Tensor], Sequence[int]] | None = None,
) -> tuple[int, int]:
    """Update weights and select; see ``csrc/cpu/select.h``.

    ``inputs``: log-weights, values, previous values, log-ratio and running values, contiguous ``[N]`` or ``[G, N]``.
    ``outputs``: log-weights, values, running values, ancestors, resampled, log-Z increment and effective sample size.
    ``value``: kind, states ``[rows, columns]``, parameters and settings, as for `evaluate`; values are then written first.
    """
    kind, states, parameters, settings = value or (-1, None, (), ())
    log_weights, running = inputs[0], inputs[4]
    assert log_weights is not None
    shape = log_weights.shape
    if seeds is not None:
        seeds = seeds.contiguous()
    return _cpu.reweight_select(
        *map(_address, inputs),
        0 if running is None else running.element_size(),
        log_weights.dtype is torch.float64,
        shape[0] if len(shape) > 1 else 1,
        shape[-1],
        _address(betas),
        _address(previous_betas),
        beta,
        previous_beta,
        rule,
        ess_threshold,
        _address(seeds),
        seed & 0xFFFFFFFFFFFFFFFF,
        step,
        *map(_address, outputs),
        kind,
        _address(states),
        0 if states is None else _STATE_TYPES[states.dtype],
        0 if states is None else states.shape[1],
        [p.data_ptr() for p in parameters],
        settings,
        config.threads(),
    )
