"""A kernel that gets no memory says so; what it would have written is never handed out."""

from __future__ import annotations

import pytest
import torch

from fastguide import ops
from fastguide.ops import _native

X = torch.zeros(20_000)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("select", lambda: ops.select(X, rule="residual")),
        ("reweight_select", lambda: ops.reweight_select(X.double(), X.double(), X.double(), 1.0, 1.0)),
        ("unique", lambda: ops.unique(X[:, None])),
    ],
)
def test_is_an_error(name, call, monkeypatch):
    call()
    nothing = (_native.OUT_OF_MEMORY, -1, 0) if name == "unique" else (_native.OUT_OF_MEMORY, -1)
    monkeypatch.setattr(_native, name, lambda *given: nothing)
    with pytest.raises(MemoryError, match=f"{name}: no memory"):
        call()
