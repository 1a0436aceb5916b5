"""Operations take the arrays of other libraries and return arrays of the same kind."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import fastguide as fg
from fastguide import ops
from fastguide.values import compiled


def arguments() -> dict[str, tuple]:
    g = torch.Generator().manual_seed(0)
    lw = torch.randn(2, 8, generator=g)
    x = torch.randn(4, 3, generator=g)
    tokens, logits = torch.full((4, 5), 3), torch.randn(4, 5, 3, generator=g)
    coefficients = {"x_coefficient": 1.0, "prediction_coefficient": 0.5, "sigma": 0.1}
    children = ops.gaussian_step(x, x, **coefficients, branch=2)
    drawn = ops.masked_step(tokens, logits, reveal_probability=0.5, branch=2)
    return {
        "select": (ops.select, (lw,), {"seed": torch.tensor([1, 2])}),
        "reweight_select": (ops.reweight_select, (lw, lw, lw, 2.0, 1.0), {"running": lw}),
        "move": (ops.move, ([x, tokens], torch.tensor([0, 0, 2, 3], dtype=torch.int32)), {}),
        "gaussian_step": (ops.gaussian_step, (x, x), coefficients),
        "gaussian_log_ratio": (ops.gaussian_log_ratio, (children, x, x), coefficients | {"shift": x}),
        "masked_step": (ops.masked_step, (tokens, logits), {"reveal_probability": 0.5}),
        "masked_mode": (ops.masked_mode, (tokens, logits), {}),
        "masked_log_ratio": (ops.masked_log_ratio, (tokens, drawn, logits), {"shift": logits}),
        "evaluate": (ops.evaluate, (compiled.Linear([1.0, 2.0, 3.0]), x), {}),
        "unique": (ops.unique, (tokens,), {}),
    }  # fmt: skip


def every(f, x):
    if isinstance(x, dict):
        return {k: every(f, v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [every(f, v) for v in x]
    return f(x) if isinstance(x, torch.Tensor) else x


def flat(x) -> list:
    return [leaf for part in x for leaf in flat(part)] if isinstance(x, (list, tuple)) else [x]


def check(name: str, into, kind: type) -> None:
    operation, positional, named = arguments()[name]
    wanted = flat(operation(*positional, **named))
    got = operation(*every(into, positional), **every(into, named))
    if name in ("select", "reweight_select", "unique"):
        assert type(got) is type(operation(*positional, **named))
    for a, b in zip(flat(got), wanted, strict=True):
        assert b is None or isinstance(a, kind)
        assert b is None or np.array_equal(np.asarray(a), b.numpy())


@pytest.mark.parametrize("name", arguments())
def test_numpy(name):
    check(name, lambda x: x.numpy(), np.ndarray)


@pytest.mark.parametrize("name", arguments())
def test_jax(name):
    jax = pytest.importorskip("jax")
    sixty_four = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64
    with sixty_four(True):
        check(name, lambda x: jax.numpy.asarray(x.numpy()), jax.Array)


def test_jax_without_64_bits():
    jax = pytest.importorskip("jax")
    out = ops.select(jax.numpy.zeros(4))
    assert out.ancestors.tolist() == [0, 1, 2, 3]
    assert float(out.ess) == 4.0


def test_arrays_that_torch_does_not_read_as_they_are():
    lw = np.linspace(-1, 1, 8)
    wanted = ops.select(torch.from_numpy(lw[::-1].copy())).ancestors.numpy()
    frozen = lw[::-1].copy()
    frozen.flags.writeable = False
    for form in (lw[::-1], frozen, lw[::-1].astype(">f8")):
        assert np.array_equal(ops.select(form).ancestors, wanted)


def test_memory_given_is_written():
    out = ops.Selection(np.empty(4, np.int32), np.empty(()), np.empty(()))
    result = ops.select(np.zeros(4), out=out)
    assert np.shares_memory(result.ancestors, out.ancestors)
    assert out.ancestors.tolist() == [0, 1, 2, 3]
    rows = np.arange(4.0)
    ops.move(rows, np.array([0, 0, 2, 2], dtype=np.int32), inplace=True)
    assert rows.tolist() == [0, 0, 2, 2]


def test_refusals():
    frozen = np.empty(4, np.int32)
    frozen.flags.writeable = False
    with pytest.raises(ValueError, match="out: expected an array that can be written in place"):
        ops.select(np.zeros(4), out=ops.Selection(frozen, np.empty(()), np.empty(())))
    with pytest.raises(TypeError, match="log_weights: torch cannot read this ndarray of <U1"):
        ops.select(np.array(["a", "b"]))
    with pytest.raises(TypeError, match=r"log_weights: expected float32 or float64, got torch\.int64"):
        ops.select(np.zeros(4, np.int64))
    with pytest.raises(TypeError, match=r"values: expected a torch\.Tensor, got ndarray"):
        ops.reweight_select(torch.zeros(4), np.zeros(4), torch.zeros(4), 1.0, 1.0)
    with fg.backend("torch"):
        assert isinstance(ops.select(np.zeros(4)).ess, np.ndarray)
