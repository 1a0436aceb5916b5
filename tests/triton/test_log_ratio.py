from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from fastguide.ops import gaussian_log_ratio, masked_log_ratio, masked_step
from tests.specs import masked_states
from tests.triton.agreement import assert_agrees
from tests.triton.device import DEVICE

pytest.importorskip("triton")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (3,), (33, 7), (1_031,)], ids=str)
def test_gaussian_ratios_agree(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x, prediction, shift = (normal(5, *shape, seed=i) for i in range(3))
    common: dict[str, Any] = {"x": x, "prediction": prediction.to(dtype), "shift": shift.to(dtype)}
    numbers: dict[str, Any] = {"x_coefficient": 0.9, "prediction_coefficient": -0.3, "sigma": 1.3}
    assert_agrees(gaussian_log_ratio, "plain", children=normal(5, 1, *shape, seed=4), **common, **numbers)
    numbers |= {"sigma": torch.tensor([0.1, 2.0]), "x_coefficient": torch.tensor([1.5, -2.0]), "shift_coefficient": 0.2}
    children = normal(12, 3, *shape, seed=3) * 10
    ancestors = torch.arange(12).int() % 5
    assert_agrees(gaussian_log_ratio, "children", children=children, **common, **numbers, ancestors=ancestors)


def proposal(states: int, length: int, vocab: int, particles: int, branch: int, **law: Any) -> dict[str, Any]:
    """Return arguments of a masked ratio: children drawn by a shifted step."""
    tokens, logits = masked_states(states, length, vocab)
    shift = normal(*logits.shape, seed=1)
    shift[..., 3] = -math.inf
    ancestors = torch.randint(0, states, (particles,), generator=torch.Generator().manual_seed(1))
    given = {"tokens": tokens, "logits": logits, "shift": shift, "ancestors": ancestors, **law}
    children = masked_step(**given, reveal_probability=0.6, branch=branch)
    return {**given, "children": children}


@pytest.mark.parametrize("law", [{}, {"temperature": 0.4, "top_k": 6}, {"top_p": 0.8}], ids=str)
def test_masked_ratios_agree(law: dict[str, Any]) -> None:
    assert_agrees(masked_log_ratio, "V = 22", **proposal(7, 30, 22, 11, 3, **law))
    assert_agrees(masked_log_ratio, "V = 512", **proposal(3, 6, 512, 4, 2, **law))
    if law != {"top_p": 0.8}:
        assert_agrees(masked_log_ratio, "V = 700", **proposal(2, 4, 700, 3, 2, **law))


def test_bias_lengths_and_views_agree() -> None:
    bias = normal(30, 22, seed=8)
    given = proposal(7, 30, 22, 12, 2, bias=bias)
    given["lengths"] = torch.tensor([30, 7])
    given["logits"] = torch.stack([given["logits"]] * 2, 1)[:, 1]
    assert_agrees(masked_log_ratio, "bias [L, V]", **given)
    assert_agrees(masked_log_ratio, "bias [V]", **proposal(3, 4, 600, 2, 1, bias=normal(600, seed=9)))


def test_nothing_revealed_is_a_ratio_of_one() -> None:
    given = proposal(4, 6, 9, 4, 2)
    given["children"] = given["tokens"][given["ancestors"]][:, None].expand(-1, 2, -1).contiguous()
    assert (assert_agrees(masked_log_ratio, "copies", **given)[0] == 0).all()


def refusals(vocab: int) -> list[dict[str, Any]]:
    given = proposal(4, 3, vocab, 4, 2)
    given["ancestors"] = torch.arange(4)
    given["tokens"][:] = vocab
    given["children"][:] = 0
    given["logits"][:] = 0
    given["shift"][:] = 0
    given["shift"][..., 3] = -math.inf

    def changed(name: str, at: tuple[int, ...], value: float) -> dict[str, Any]:
        tensor = given[name].clone()
        tensor[at] = value
        return {**given, name: tensor}

    return [
        changed("ancestors", (1,), 9),
        changed("tokens", (2, 1), vocab + 1) | {"ancestors": torch.tensor([0, 2, 2, 1])},
        changed("children", (1, 1, 2), -1),
        changed("children", (3, 0, 1), 3),
        changed("logits", (2, 1, 0), math.nan),
        changed("shift", (1, 2, 1), math.inf),
        changed("logits", (1,), -math.inf),
    ]


@pytest.mark.parametrize("vocab", [9, 520])
def test_errors_are_those_of_the_reference(vocab: int) -> None:
    calls = refusals(vocab)
    for i, call in enumerate(calls if vocab == 9 else calls[3:6]):
        errors = []
        for backend in ("torch", "cpu", "triton"):
            on = {k: v.to(DEVICE) if isinstance(v, Tensor) and backend == "triton" else v for k, v in call.items()}
            with pytest.raises((ValueError, IndexError)) as raised:
                masked_log_ratio(**on, backend=backend)
            errors.append((raised.type, str(raised.value)))
        assert errors[0] == errors[1] == errors[2], i
