from __future__ import annotations

import importlib.util
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fastguide.protein import encode


@pytest.fixture(scope="session")
def tokens() -> Callable[..., Tensor]:
    """``tokens("MKV", "AAA")``: int64 ``[2, 3]``."""
    return lambda *sequences: torch.stack([encode(sequence) for sequence in sequences])


@pytest.fixture(scope="session")
def random_tokens() -> Callable[..., Tensor]:
    """``random_tokens(n, length)``: int64 ``[n, length]``, always the same."""
    return lambda n, length: torch.randint(20, (n, length), generator=torch.Generator().manual_seed(n + length))


@pytest.fixture(scope="session")
def alphapredict() -> None:
    if importlib.util.find_spec("alphaPredict") is None:
        pytest.skip("alphapredict is not installed")
