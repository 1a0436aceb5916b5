"""Seeds, steps and what else changes from step to step, read by the kernels from tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from fastguide.deferred import Deferred, deferred
from fastguide.ops import masked_step
from tests.ops.test_device_numbers import CASES, results, tensor_of
from tests.specs import assert_same_bits, masked_states
from tests.test_deferred import HostReads
from tests.triton.agreement import filled_with_nan, flat, on_device

pytest.importorskip("triton")


@pytest.mark.parametrize(("call", "fixed", "numbers"), CASES)
def test_kernels_read_them_and_the_host_does_not(
    call: Callable[..., Any], fixed: dict[str, Any], numbers: dict[str, Any]
) -> None:
    expected = results(call(**fixed, **numbers, backend="cpu"))
    fixed, tensors = on_device(fixed), on_device({name: tensor_of(number) for name, number in numbers.items()})
    with filled_with_nan():
        assert_same_bits(expected, flat(results(call(**fixed, **tensors, backend="triton"))), "read at once")
    later = Deferred()
    with deferred(later), HostReads():
        got = call(**fixed, **tensors, backend="triton")
    later.check()
    assert_same_bits(expected, flat(results(got)), "deferred")


def test_a_probability_out_of_range_stays_within_bounds() -> None:
    tokens, logits = on_device(masked_states(3, 9, 5))
    for number, instead in ((-0.5, 0.0), (torch.nan, 0.0), (1.5, 1.0)):
        probability = on_device(torch.tensor(number))
        with pytest.raises(ValueError, match=r"reveal_probability: expected a number in \[0, 1\]"):
            masked_step(tokens, logits, reveal_probability=probability, backend="triton")
        with deferred():
            got = masked_step(tokens, logits, reveal_probability=probability, backend="triton")
        assert torch.equal(got, masked_step(tokens, logits, reveal_probability=instead, backend="triton"))
