"""blackjax on JAX: its resampling schemes, compiled, from log-weights to ancestors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from fastguide.bench.peers import ABSENT, all_cores, package

NAME = "blackjax (JAX, jit)"


def resampling(rule: str, log_weights: Tensor) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """Return the competitor for a rule, or say that it is absent."""
    if log_weights.element_size() == 8:
        return {}, {NAME: "float64 is a switch of the whole process in JAX"}
    with all_cores():
        jax, module = package("jax"), package("blackjax.smc.resampling")
        if jax is None or module is None:
            return {}, {NAME: ABSENT}
        scheme, m = getattr(module, rule), len(log_weights)

        def draw(key: Any, x: Any) -> Any:
            weights = jax.nn.softmax(x)
            mean = jax.scipy.special.logsumexp(x) - jax.numpy.log(m)
            return scheme(key, weights, m), mean, 1.0 / jax.numpy.square(weights).sum()

        compiled = jax.jit(draw)
        x, key = jax.numpy.asarray(log_weights.numpy()), jax.random.key(0)
        jax.block_until_ready(compiled(key, x))
    return {NAME: lambda: jax.block_until_ready(compiled(key, x))}, {}
