"""Resampling schemes for ``particles``: ``particles.SMC(fk=…, N=…, resampling="fastguide_systematic")``.

Importing this file registers ``fastguide_systematic``, ``fastguide_stratified``, ``fastguide_multinomial`` and
``fastguide_residual`` in ``particles.resampling``, with the signature of its own schemes: normalised weights ``[N]`` and the
number of draws to int64 ancestors ``[M]``. Counts are exact at any N, and random numbers follow ``np.random.seed``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from particles import resampling as _peer

from fastguide import ops
from fastguide.adapters._seeds import numpy_seed

Scheme = Callable[..., "np.ndarray[Any, np.dtype[np.int64]]"]


def _register(rule: str) -> Scheme:
    def scheme(W: Any, M: int) -> Any:  # noqa: N803 - their names
        log_weights = torch.log(torch.from_numpy(np.ascontiguousarray(W)))
        return ops.select(log_weights, M, rule=rule, seed=numpy_seed()).ancestors.to(torch.int64).numpy()

    scheme.__name__ = f"fastguide_{rule}"
    scheme.__doc__ = f"Resample by ``fastguide.ops.select`` with ``rule={rule!r}``."
    registered: Scheme = _peer.resampling_scheme(scheme)
    return registered


systematic, stratified, multinomial, residual = map(_register, ("systematic", "stratified", "multinomial", "residual"))
