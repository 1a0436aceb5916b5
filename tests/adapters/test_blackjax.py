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


def test_the_same_under_jit_and_a_key_is_a_seed():
    weights = jax.numpy.ones(64) / 64
    draw = jax.jit(ours.multinomial, static_argnums=2)
    a = ours.multinomial(jax.random.key(1), weights, 64)
    assert np.array_equal(draw(jax.random.key(1), weights, 64), a)
    assert np.array_equal(ours.multinomial(jax.random.PRNGKey(1), weights, 64), a)
    assert not np.array_equal(draw(jax.random.key(2), weights, 64), a)
    assert draw(jax.random.key(1), weights, 10).shape == (10,)


def test_rows_of_weights_are_drawn_side_by_side():
    weights = jax.nn.softmax(3 * jax.random.normal(jax.random.key(0), (5, 32)))
    keys = jax.random.split(jax.random.key(1), 5)
    rows = jax.vmap(ours.residual, in_axes=(0, 0, None))(keys, weights, 32)
    for row, key, w in zip(rows, keys, weights, strict=True):
        assert np.array_equal(row, ours.residual(key, w, 32))


def test_large_draws_inside_a_larger_program():
    n = 2**18
    weights = jax.nn.softmax(jax.random.normal(jax.random.key(0), (n,)))

    @jax.jit
    def step(key, x):
        return x[ours.systematic(key, weights * 2, n)].sum()

    # What is drawn systematically is exact to one a particle: the sum of N indices, over N², to 1e-5.
    drawn = float(step(jax.random.key(1), jax.numpy.arange(n) / n)) / n
    assert drawn == pytest.approx(float((weights * jax.numpy.arange(n) / n).sum()), abs=1e-4)


def test_counts_are_exact_where_float32_sums_are_not():
    n = 2**20
    weights = jax.nn.softmax(jax.random.normal(jax.random.key(1), (n,)))
    share = n * np.asarray(weights, np.float64) / np.asarray(weights, np.float64).sum()
    outside = []
    for module in (ours, theirs):
        count = np.bincount(np.asarray(module.systematic(jax.random.key(2), weights, n)), minlength=n)
        outside.append(int(((count < np.floor(share)) | (count > np.ceil(share))).sum()))
    assert outside[0] == 0
    assert outside[1] > 0


@pytest.mark.parametrize(("bad", "message"), [(-1.0, "nan"), (np.nan, "nan"), (np.inf, "inf")])
def test_bad_weights_are_errors(bad, message):
    weights = np.ones(4, np.float32)
    weights[2] = bad
    with pytest.raises(Exception, match=f"log_weights: {message} at .*index 2"):
        jax.block_until_ready(ours.systematic(jax.random.key(0), weights, 4))
    with pytest.raises(Exception, match="every weight"):
        jax.block_until_ready(ours.systematic(jax.random.key(0), np.zeros(4, np.float32), 4))
