from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from fastguide.errors import DegenerateWeights
from fastguide.ops import reweight_select
from tests.triton.agreement import assert_agrees, on_device

pytest.importorskip("triton")

# Infinities meet on purpose; numpy, in which kernels are interpreted, says so.
pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
RULES = ["systematic", "stratified", "multinomial", "residual"]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def particles(groups: int, n: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return groups of which some resample at a threshold of one half; the last is dead, others in part."""
    spread = torch.linspace(0.1, 3, groups, dtype=dtype)[:, None]
    x, values = normal(groups, n, dtype=dtype) * spread - 300, normal(groups, n, seed=1, dtype=dtype) * spread
    x[:, 2 :: max(n // 3, 2)] = -math.inf
    values[1, 1] = -math.inf
    x[-1] = -math.inf
    previous = normal(groups, n, seed=2, dtype=dtype)
    previous[-1, 0] = -math.inf
    return {"log_weights": x, "values": values, "previous_values": previous}


def settings(groups: int, n: int, dtype: torch.dtype) -> Iterator[dict[str, Any]]:
    yield {"beta": 1.5, "previous_beta": 0.7, "seed": 3, "degenerate": "keep"}
    yield {
        "beta": torch.linspace(0.1, 2, groups),
        "previous_beta": torch.zeros(()),
        "log_ratio": normal(groups, n, seed=4, dtype=dtype),
        "running": torch.arange(groups * n).view(groups, n),
        "ess_threshold": 1.0,
        "seed": torch.arange(groups) * 2**59 - 3,
        "step": 2**28 - 1,
        "degenerate": "keep",
    }


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("n", [3, 50, 4200])
def test_groups_agree(rule: str, n: int) -> None:
    for dtype, more in zip((torch.float32, torch.float64), settings(4, n, torch.float64), strict=True):
        got = assert_agrees(reweight_select, f"{dtype}", **particles(4, n, dtype), rule=rule, **more)
        assert not bool(got[4][-1])
    assert bool(got[4][:-1].all())


def test_a_single_group_without_resampling_agrees() -> None:
    x = normal(40)
    got = assert_agrees(
        reweight_select, "threshold 0", log_weights=x, values=x, previous_values=x, beta=1.0, previous_beta=0.5,
        running=normal(40, seed=1), ess_threshold=0.0,
    )  # fmt: skip
    assert got[3].tolist() == list(range(40))


@pytest.mark.parametrize("n", [9, 4100])
@pytest.mark.parametrize("name", ["log_weights", "values", "previous_values", "log_ratio"])
def test_the_first_refused_input_is_named(name: str, n: int) -> None:
    inputs = {x: torch.zeros(3, n) for x in ("log_weights", "values", "previous_values", "log_ratio")}
    inputs[name][1, 4] = inputs[name][2, 0] = math.nan
    with pytest.raises(ValueError, match=rf"{name}: nan at group 1, index 4"):
        reweight_select(**on_device(inputs), beta=1.0, previous_beta=1.0, backend="triton")


def test_a_group_without_weight_is_named() -> None:
    x = torch.zeros(3, 9)
    dead = x.clone()
    dead[2] = -math.inf
    with pytest.raises(DegenerateWeights, match="group 2"):
        reweight_select(*on_device([x, dead, x]), 1.0, 1.0, backend="triton")
