"""The functions of ``blackjax.smc.resampling``, drawn on the CPU by `fastguide.ops.select` through ``jax.pure_callback``.

    from fastguide.adapters import blackjax as resampling     # was: from blackjax.smc import resampling

Each is ``(rng_key, weights [N], num_samples) -> indices [num_samples]`` and works under ``jit`` and ``vmap``; the same key
gives the same indices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from fastguide import ops

try:
    import jax
    import jax.numpy as jnp
except ImportError as error:
    raise ImportError("fastguide.adapters.blackjax: needs jax; pip install jax") from error

Resampling = Callable[[Any, Any, int], Any]


def _resampling(rule: str) -> Resampling:
    def draw(words: Any, weights: Any, num_samples: int) -> Any:
        # Where vmap adds axes, every row is a group with a seed of its own.
        rows = torch.from_numpy(np.array(weights, dtype=np.float64)).log()
        seeds = torch.from_numpy(np.array(words).astype(np.uint32).reshape(-1, 2).view(np.int64).reshape(-1).copy())
        flat = rows.reshape(-1, rows.shape[-1])
        ancestors = ops.select(flat, num_samples, rule=rule, seed=seeds.expand(len(flat)).contiguous()).ancestors
        return ancestors.reshape(*rows.shape[:-1], num_samples).numpy()

    def resample(rng_key: Any, weights: Any, num_samples: int) -> Any:
        words = jax.random.bits(rng_key, (2,), jnp.uint32)
        out = jax.ShapeDtypeStruct((num_samples,), jnp.int32)
        return jax.pure_callback(lambda k, w: draw(k, w, num_samples), out, words, weights, vmap_method="broadcast_all")

    resample.__name__ = rule
    resample.__doc__ = f"Draw ``num_samples`` indices by ``fastguide.ops.select`` with ``rule={rule!r}``."
    return resample


systematic, stratified, multinomial, residual = map(
    _resampling, ("systematic", "stratified", "multinomial", "residual")
)
