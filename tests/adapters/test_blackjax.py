"""Functions of ``blackjax.smc.resampling``'s signature."""

from __future__ import annotations

import numpy as np
import pytest

jax = pytest.importorskip("jax")
theirs = pytest.importorskip("blackjax.smc.resampling")
ours = pytest.importorskip("fastguide.adapters.blackjax")


@pytest.mark.parametrize("name", ["systematic", "stratified", "multinomial", "residual"])
def test_counts_are_theirs_on_average(name):
    weights = np.array([4, 0, 1, 2, 8, 3, 1, 1], dtype=np.float32) / 20
    keys = jax.random.split(jax.random.key(0), 2000)
    # 16,000 draws: counts within 5 standard errors, a false alarm once in 50,000.
    draw = jax.jit(jax.vmap(lambda key: getattr(ours, name)(key, weights, 8)))
    drawn = np.asarray(draw(keys))
    assert drawn.dtype == np.asarray(getattr(theirs, name)(keys[0], weights, 8)).dtype
    counts = np.array([np.bincount(row, minlength=8) for row in drawn])
    assert (np.abs(counts.mean(0) - 8 * weights) < 5 * counts.std(0) / np.sqrt(2000) + 1e-6).all()
    assert np.array_equal(draw(keys), drawn)
