"""The compiled kernels: the only file that touches data pointers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Size, Tensor, float64

from fastguide import config
from fastguide.errors import BackendUnavailable

try:
    from fastguide import _cpu
except ImportError as error:  # pragma: no cover - a broken installation
    raise BackendUnavailable(
        f"fastguide._cpu is not built ({error}); run `pip install .` in a checkout, or reinstall fastguide"
    ) from error

OK, INVALID_VALUE, DEGENERATE, OUT_OF_RANGE, OUT_OF_MEMORY = range(5)

if (_level := config.simd_level()) is not None:
    _cpu.force_level(_level)


def move(sources: Sequence[Tensor], targets: Sequence[Tensor], ancestors: Tensor, rows: int) -> tuple[int, int]:
    """Gather rows; see ``csrc/cpu/move.h``. ``ancestors`` is ``[groups, draws]`` int32."""
    groups, draws = ancestors.shape
    return _cpu.move(
        [s.data_ptr() for s in sources],
        [t.data_ptr() for t in targets],
        [s[0].numel() * s.element_size() for s in sources],
        ancestors.data_ptr(),
        groups,
        rows,
        draws,
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
    groups, parents, items = rows_of(log_weights.shape)
    if seeds is not None:
        seeds = seeds.contiguous()
    return _cpu.select(
        log_weights.data_ptr(),
        log_weights.dtype is float64,
        groups,
        parents,
        items,
        k,
        rule,
        slots,
        0 if seeds is None else seeds.data_ptr(),
        seed & 0xFFFFFFFFFFFFFFFF,
        step,
        ancestors.data_ptr(),
        log_mean_weight.data_ptr(),
        ess.data_ptr(),
        config.threads(),
    )


def _address(x: Tensor | None) -> int:
    return 0 if x is None else x.data_ptr()


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
) -> tuple[int, int]:
    """Update weights and select; see ``csrc/cpu/select.h``.

    ``inputs``: log-weights, values, previous values, log-ratio and running values, contiguous ``[N]`` or ``[G, N]``.
    ``outputs``: log-weights, values, running values, ancestors, resampled, log-Z increment and effective sample size.
    """
    log_weights, running = inputs[0], inputs[4]
    assert log_weights is not None
    shape = log_weights.shape
    if seeds is not None:
        seeds = seeds.contiguous()
    return _cpu.reweight_select(
        *map(_address, inputs),
        0 if running is None else running.element_size(),
        log_weights.dtype is float64,
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
        config.threads(),
    )
