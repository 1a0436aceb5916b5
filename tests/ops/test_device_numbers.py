"""Numbers that change from step to step may be tensors, which kernels read where they are: the bits are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from fastguide import ops
from tests.specs import assert_same_bits, builds, masked_states


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def tensor_of(number: float) -> Tensor:
    """Return an int64 or float64 tensor of no dimension."""
    return torch.tensor(number, dtype=torch.float64 if isinstance(number, float) else torch.int64)


def cases() -> Iterator[tuple[str, Callable[..., Any], dict[str, Any], dict[str, Any]]]:
    """Yield operations, their fixed arguments, and the numbers that may be tensors."""
    drawn = {"seed": 2**62 + 5, "step": 2**20 + 3}
    tokens, logits = masked_states(6, 9, 5)
    masked = {"tokens": tokens, "logits": logits, "branch": 2}
    yield "masked_step, chance", ops.masked_step, masked, {**drawn, "reveal_probability": 0.3}
    yield "masked_step, all", ops.masked_step, masked, {**drawn, "reveal_probability": 1.0, "remask_probability": 0.0}
    yield "masked_step, none", ops.masked_step, masked, {**drawn, "reveal_probability": 0.0, "remask_probability": 1.0}
    for order in ("random", "confidence"):
        numbers = {**drawn, "reveal_count": 2, "remask_probability": 1 / 3}
        yield f"masked_step, {order}", ops.masked_step, {**masked, "order": order}, numbers
    yield "masked_mode", ops.masked_mode, {"tokens": tokens, "logits": logits, "rule": "draw"}, drawn
    x = normal(6, 9)
    numbers = {"x_coefficient": 0.9, "prediction_coefficient": -0.3, "sigma": 0.7, "shift_coefficient": 1 / 3}
    gaussian = {"x": x, "prediction": x + 1, "shift": x.flip(0)}
    yield "gaussian_step", ops.gaussian_step, gaussian, {**drawn, **numbers}
    yield "gaussian_step without noise", ops.gaussian_step, gaussian, {**drawn, **numbers, "sigma": 0.0}
    yield "gaussian_log_ratio", ops.gaussian_log_ratio, {**gaussian, "children": normal(6, 2, 9, seed=1)}, numbers
    for rule in ("systematic", "stratified", "multinomial", "residual", "gumbel_topk"):
        yield f"select, {rule}", ops.select, {"log_weights": normal(3, 40), "k": 7, "rule": rule}, drawn
        yield f"select, one row, {rule}", ops.select, {"log_weights": normal(40), "k": 7, "rule": rule}, drawn
        if rule == "gumbel_topk":
            continue
        particles = {name: normal(3, 40, seed=i) for i, name in enumerate(("log_weights", "values", "previous_values"))}
        settings = {**particles, "rule": rule, "ess_threshold": 1.0}
        numbers = {**drawn, "beta": 1.5, "previous_beta": 0.5}
        yield f"reweight_select, {rule}", ops.reweight_select, settings, numbers


CASES = [pytest.param(*case[1:], id=case[0]) for case in cases()]


def results(x: Any) -> tuple[Any, ...]:
    """Return the tensors of a result."""
    return (x,) if isinstance(x, Tensor) else tuple(x)


@pytest.mark.parametrize(("call", "fixed", "numbers"), CASES)
def test_tensors_give_what_numbers_give(
    call: Callable[..., Any], fixed: dict[str, Any], numbers: dict[str, Any]
) -> None:
    tensors = {name: tensor_of(number) for name, number in numbers.items()}
    expected = results(call(**fixed, **numbers, backend="torch"))
    assert_same_bits(expected, results(call(**fixed, **tensors, backend="torch")), "torch")
    for build in builds():
        assert_same_bits(expected, results(call(**fixed, **tensors, backend="cpu")), build)
    of_one = {name: x if name in ("seed", "reveal_count") else x.reshape(1) for name, x in tensors.items()}
    assert_same_bits(expected, results(call(**fixed, **of_one)), "of one element")
    single = {name: x.float() if x.is_floating_point() else x for name, x in tensors.items()}
    rounded = {name: float(x) if x.is_floating_point() else numbers[name] for name, x in single.items()}
    assert_same_bits(results(call(**fixed, **rounded)), results(call(**fixed, **single)), "float32")


@pytest.mark.parametrize(("call", "fixed", "numbers"), CASES)
def test_a_compiled_function_takes_the_numbers_of_tensors_anew(
    call: Callable[..., Any], fixed: dict[str, Any], numbers: dict[str, Any]
) -> None:
    tensors = {name: tensor_of(number) for name, number in numbers.items()}

    def step(tensors: dict[str, Tensor]) -> Any:
        return call(**fixed, **tensors)

    torch._dynamo.reset()  # each case is a compilation of the one function `step`, of which there may be few
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    assert_same_bits(results(step(tensors)), results(compiled(tensors)), "at first")
    if "step" in tensors:
        tensors["step"] = tensors["step"] + 1
        assert_same_bits(results(step(tensors)), results(compiled(tensors)), "at the next step")


def test_groups_get_one_number_of_a_tensor_of_one() -> None:
    seeds, x = torch.tensor([3, 4]), normal(6, 9)
    common = {"x": x, "prediction": x, "prediction_coefficient": torch.tensor([0.5, 0.25]), "seed": seeds}
    for one in (torch.tensor(0.7), torch.tensor([0.7])):
        expected = ops.gaussian_step(x_coefficient=0.7, sigma=0.7, **common)
        assert torch.equal(ops.gaussian_step(x_coefficient=one, sigma=one, **common), expected)
    tokens, logits = masked_states(6, 9, 5)
    expected = ops.masked_step(tokens, logits, reveal_count=torch.tensor([2, 2]), seed=seeds)
    assert torch.equal(ops.masked_step(tokens, logits, reveal_count=torch.tensor(2), seed=seeds), expected)


def test_numbers_that_do_not_fit_are_refused_where_they_are_read() -> None:
    x, (tokens, logits) = normal(4), masked_states(2, 4, 3)
    zero = {"x_coefficient": 0.0, "prediction_coefficient": 0.0}
    for backend in ("cpu", "torch"):
        for step in (-1, 2**28):
            with pytest.raises(ValueError, match=rf"step: expected a whole number in \[0, 2\^28\), got {step}"):
                ops.select(x, step=torch.tensor(step), backend=backend)
        for name in ("reveal_probability", "remask_probability"):
            for number in (-0.5, torch.nan, 1.5):
                given = {"reveal_probability": 0.5, name: torch.tensor(number)}
                with pytest.raises(ValueError, match=rf"{name}: expected a number in \[0, 1\], got {number}"):
                    ops.masked_step(tokens, logits, **given, backend=backend)
        with pytest.raises(ValueError, match=r"sigma: expected a finite number at least 0, got -1.0"):
            ops.gaussian_step(x, x, **zero, sigma=torch.tensor(-1.0), backend=backend)


def test_tensors_that_hold_no_number_are_refused() -> None:
    x, (tokens, logits) = normal(4), masked_states(2, 4, 3)
    for step in (torch.tensor(1.0), torch.tensor([1, 2]), torch.tensor(1, dtype=torch.int32)):
        for call in (lambda step: ops.select(x, step=step), lambda step: ops.reweight_select(x, x, x, 1, 0, step=step)):
            with pytest.raises(TypeError, match="step: expected a whole number or an int64 tensor of one"):
                call(step)
    with pytest.raises(TypeError, match="reveal_probability: expected a number or a floating-point tensor of one, got"):
        ops.masked_step(tokens, logits, reveal_probability=torch.tensor([0.5, 0.5]))
    with pytest.raises(TypeError, match=r"remask_probability: expected .* got torch.int64"):
        ops.masked_step(tokens, logits, reveal_count=1, remask_probability=torch.tensor(1))
