"""Results of the Triton kernels beside those of the reference and of the compiled kernels: the same bits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.specs import REFERENCE, assert_same_bits, build
from tests.triton.device import DEVICE


def on_device(x: Any) -> Any:
    """Return ``x`` with the tensors in it, at any depth of lists, tuples and dictionaries, on the device of the tests."""
    if isinstance(x, Tensor):
        return x.to(DEVICE)
    if isinstance(x, dict):
        return {name: on_device(value) for name, value in x.items()}
    if isinstance(x, (list, tuple)):
        return type(x)(map(on_device, x))
    return x


def flat(result: Any) -> list[Tensor | None]:
    """Return the tensors of a result in order, on the CPU."""
    if isinstance(result, Tensor):
        return [result.cpu()]
    return [None if x is None else x.cpu() for x in result]


def assert_agrees(call: Callable[..., Any], what: str, **arguments: Any) -> Any:
    """Assert that ``call``, an operation, gives one set of bits on every backend; return them, on the CPU."""
    with build(*REFERENCE):
        expected = flat(call(**arguments, backend="torch"))
    assert_same_bits(expected, flat(call(**arguments, backend="cpu")), f"{what}, cpu")
    with filled_with_nan():
        got = flat(call(**on_device(arguments), backend="triton"))
    assert_same_bits(expected, got, f"{what}, triton")
    return expected


class filled_with_nan:  # noqa: N801 - reads as what it does
    """Fill what ``torch.empty`` and ``new_empty`` give with NaN or large numbers, so that what is not written shows."""

    def __enter__(self) -> None:
        self._before = torch.utils.deterministic.fill_uninitialized_memory, torch.are_deterministic_algorithms_enabled()
        torch.utils.deterministic.fill_uninitialized_memory = True
        torch.use_deterministic_algorithms(True, warn_only=True)

    def __exit__(self, *_: object) -> None:
        torch.utils.deterministic.fill_uninitialized_memory = self._before[0]
        torch.use_deterministic_algorithms(self._before[1])


class NoHostReads(TorchDispatchMode):
    """Fails where a number is read from a tensor, or a tensor has a shape that depends on numbers."""

    refused = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket.__name__ not in self.refused, f"{func} reads from the device"
        return func(*args, **(kwargs or {}))
