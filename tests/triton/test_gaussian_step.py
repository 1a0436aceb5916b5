from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastguide.ops import gaussian_step
from tests.triton.agreement import assert_agrees
from tests.triton.device import DEVICE

pytest.importorskip("triton")

NUMBERS: dict[str, Any] = {"x_coefficient": 0.9, "prediction_coefficient": -0.3, "sigma": 1.3}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def agree(x: Tensor, prediction: Tensor, **arguments: Any) -> Tensor:
    children: Tensor = assert_agrees(gaussian_step, str(tuple(x.shape)), x=x, prediction=prediction, **arguments)[0]
    return children


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(3,), (), (1,), (3, 64, 7), (17_001,)], ids=str)
def test_steps_agree(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, prediction, shift = (normal(5, *shape, seed=i) for i in range(3))
    agree(x, prediction.to(dtype), **NUMBERS, seed=2**63 + 5, step=2**28 - 1)
    agree(
        x,
        prediction.to(dtype),
        x_coefficient=0.9,
        prediction_coefficient=normal(3),
        sigma=torch.tensor([0.0, 1.0, 2.0]),
        shift=shift.to(dtype),
        shift_coefficient=0.2,
        ancestors=torch.tensor([4, 0, 0, 2, 1, 3]).int(),
        branch=3,
        seed=torch.tensor([1, -2, 3]),
        step=7,
        slots=torch.arange(6) * 700_000_001 % 2**30,
    )


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_step_agrees(data: st.DataObject) -> None:
    groups, per_group, size = (data.draw(st.integers(1, n)) for n in (3, 4, 70))
    number = st.floats(-10, 10, width=32)
    x = normal(groups * per_group, size, seed=data.draw(st.integers(0, 99)))
    x[0, 0] = data.draw(st.sampled_from([6e4, -1e-40, 0.0]))
    agree(
        x,
        x.flip(0).half() if data.draw(st.booleans()) else x.flip(0) * 1e3,
        x_coefficient=data.draw(number),
        prediction_coefficient=data.draw(number),
        sigma=data.draw(st.sampled_from([0.0, 1e-30, 1.0, 1e30])),
        branch=data.draw(st.integers(1, 4)),
        seed=torch.tensor([data.draw(st.integers(-(2**63), 2**63 - 1)) for _ in range(groups)]),
        step=data.draw(st.integers(0, 2**28 - 1)),
    )


def test_where_sigma_is_0_nothing_is_drawn_or_added() -> None:
    x = normal(4, 9)
    children = agree(x, x, x_coefficient=1.0, prediction_coefficient=0.0, sigma=0.0, branch=2)
    assert torch.equal(children, x[:, None].expand(-1, 2, -1))


def test_rows_at_a_distance_agree() -> None:
    x = normal(6, 4, 9)
    agree(x[:, 1], x[:, 2], **NUMBERS, shift=x[:, 3].bfloat16())
    agree(x.transpose(1, 2), x.transpose(1, 2), **NUMBERS)


def test_errors_are_those_of_the_reference() -> None:
    x = normal(4, 9)
    calls: list[dict[str, Any]] = [
        {"ancestors": torch.tensor([0, 4, -1])},
        {"slots": torch.tensor([0, 1, 2**32 - 1, -1])},
        {"slots": torch.tensor([0, 1, 2**31, 1]), "branch": 2},
        {"sigma": torch.tensor([0.0, -1.0]), "seed": torch.tensor([1, 2])},
    ]
    for call in calls:
        errors = []
        for backend in ("torch", "cpu", "triton"):
            arguments = {"x": x, "prediction": x, **NUMBERS, **call}
            on = {k: v.to(DEVICE) if isinstance(v, Tensor) and backend == "triton" else v for k, v in arguments.items()}
            with pytest.raises((ValueError, IndexError)) as raised:
                gaussian_step(**on, backend=backend)
            errors.append((raised.type, str(raised.value)))
        assert errors[0] == errors[1] == errors[2]


def test_nothing_is_a_result_of_its_shape() -> None:
    assert agree(torch.zeros(0, 5), torch.zeros(0, 5), **NUMBERS).shape == (0, 1, 5)
    assert agree(torch.zeros(2, 0), torch.zeros(2, 0), **NUMBERS).shape == (2, 1, 0)
