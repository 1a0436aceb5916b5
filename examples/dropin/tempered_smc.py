import jax
import jax.numpy as jnp

from fastguide.adapters import blackjax as resampling  # was: from blackjax.smc import resampling


@jax.jit
def step(key, x):
    weights = jax.nn.softmax(-0.5 * (x - 2.0) ** 2)
    return x[resampling.systematic(key, weights, len(x))] + 0.1 * jax.random.normal(key, x.shape)


x = jnp.linspace(-3, 3, 1000)
for key in jax.random.split(jax.random.key(0), 5):
    x = step(key, x)
print("mean", float(x.mean()))
