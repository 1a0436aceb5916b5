"""One short row, which `select` reads and draws without the checks of Python where nothing is unusual."""

from __future__ import annotations

import pickle
import sys

import pytest
import torch
from torch import Tensor

from fastguide import config
from fastguide.errors import DegenerateWeights
from fastguide.ops import Selection, _native, select
from fastguide.ops._checks import RULES

SIZES = (1, 2, 31, 64, 1000, 4096, 4097, 8192)


def small(x: object, k: object = None, **changed: object) -> Selection | None:
    usual = {
        "rule": "systematic",
        "order": "sorted",
        "seed": 0,
        "step": 0,
        "degenerate": "raise",
        "out": None,
    } | changed
    return _native.select_small(Selection, x, k, *usual.values(), None)


def weights(n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(n), dtype=dtype)


pytestmark = pytest.mark.skipif(
    not hasattr(Tensor, "__dlpack_c_exchange_api__") or config.backend_of_context() is None,
    reason="this torch does not hand out its tensors, or the environment asks for another backend",
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("order", ["sorted", "slots"])
def test_is_the_same_as_the_long_way(rule, order, dtype):
    for n in SIZES:
        x = weights(n, dtype)
        for k in (None, n) if order == "slots" else (None, 1, n, (n + 1) // 2):
            usual = {"rule": rule, "order": order, "seed": n, "step": 3}
            found, expected = small(x, k, **usual), select(x, k, backend="cpu", **usual)
            assert type(found) is Selection
            for a, b in zip(found, expected, strict=True):
                assert a.dtype == b.dtype
                assert a.shape == b.shape
                assert torch.equal(a, b)


def test_writes_into_out():
    x = weights(100)
    out = Selection(*(torch.full_like(t, 77) for t in select(x, 7)))
    assert small(x, 7, out=out) is out
    assert all(torch.equal(a, b) for a, b in zip(out, select(x, 7, backend="cpu"), strict=True))


def test_gives_ordinary_tensors():
    x = weights(10)
    for t in select(x):
        assert type(t) is Tensor
        assert not t.requires_grad
        assert torch.equal(pickle.loads(pickle.dumps(t)), t)
        t.resize_(20)
    with torch.inference_mode():
        assert select(x).ess.is_inference()


class Subclass(Tensor):
    pass


@pytest.mark.parametrize(
    "changed",
    [
        {"x": weights(10).tolist()},
        {"x": weights(10).half()},
        {"x": torch.zeros(10, dtype=torch.int32)},
        {"x": weights(20)[::2]},
        {"x": torch.zeros(1, 10)},
        {"x": torch.zeros(0)},
        {"x": torch.zeros(8193)},
        {"x": torch.zeros(10, device="meta")},
        {"x": torch._neg_view(weights(10))},
        {"x": torch.nn.Parameter(weights(10))},
        {"x": weights(10).as_subclass(Subclass)},
        {"x": torch.tensor([0.0, float("nan")])},
        {"x": torch.full((3,), -float("inf"))},
        {"k": 0},
        {"k": True},
        {"k": 8193},
        {"k": 11, "rule": "topk"},
        {"k": 9, "order": "slots"},
        {"rule": "bogus"},
        {"rule": None},
        {"order": "bogus"},
        {"seed": -1},
        {"seed": 2**63},
        {"seed": True},
        {"seed": torch.tensor([1])},
        {"step": 2**28},
        {"step": -1},
        {"step": 1.0},
        {"degenerate": "keep"},
        {"out": (None, None, None)},
    ],
    ids=str,
)
def test_leaves_what_is_unusual_to_the_long_way(changed):
    usual = {"x": weights(10), "k": None} | changed
    assert small(usual.pop("x"), usual.pop("k"), **usual) is None


X = weights(10)
GOOD = select(X)


@pytest.mark.parametrize(
    "wrong",
    [
        GOOD._replace(ancestors=GOOD.ancestors[:9]),
        GOOD._replace(ancestors=GOOD.ancestors.long()),
        GOOD._replace(ancestors=torch.zeros(20, dtype=torch.int32)[::2]),
        GOOD._replace(ancestors=X.view(torch.int32)),
        GOOD._replace(ess=GOOD.log_mean_weight),
        GOOD._replace(ess=GOOD.ess.float()),
        GOOD._replace(ess=GOOD.ess.reshape(1)),
        GOOD._replace(ess=torch._neg_view(GOOD.ess)),
        GOOD._replace(ess=torch.zeros((), dtype=torch.float64, requires_grad=True)),
        GOOD._replace(ess=3.0),
    ],
    ids=range(10),
)
def test_writes_nothing_into_an_out_that_does_not_fit(wrong):
    before = [t.clone() for t in (*GOOD, X)]
    assert small(X, out=wrong) is None
    with pytest.raises((TypeError, ValueError), match=r"^out"):
        select(X, out=wrong)
    assert all(torch.equal(a, b) for a, b in zip(before, (*GOOD, X), strict=True))


def test_heeds_the_backend_that_the_context_asks_for():
    with config.backend("torch"):
        assert small(X) is None
    with config.backend("cpu"):
        assert small(X) is None
    assert small(X) is not None


def test_errors_are_those_of_the_long_way():
    with pytest.raises(ValueError, match="log_weights: nan at index 1"):
        select(torch.tensor([0.0, float("nan")]))
    with pytest.raises(DegenerateWeights, match="every weight is zero"):
        select(torch.full((3,), -float("inf")))
    with pytest.raises(TypeError, match="expected 10 arguments, got 1"):
        _native._cpu.select_small(Selection)


def test_keeps_no_reference():
    x, out = weights(10), select(weights(10))
    before = [sys.getrefcount(t) for t in (x, out, *out, None)]
    for _ in range(1000):
        small(x), small(x, out=out), small(x, k=0), small(x, out=out._replace(ess=None))
    after = [sys.getrefcount(t) for t in (x, out, *out, None)]
    assert all(b - a < 100 for a, b in zip(before, after, strict=True))


def test_under_functional_transforms_falls_back():
    seen = []

    def f(x: Tensor) -> Tensor:
        seen.append(small(x))
        return x

    torch.func.vmap(f)(torch.zeros(3, 10))
    assert seen == [None]
