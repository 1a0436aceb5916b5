"""What compiled values have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from fastguide import ops
from fastguide.rewards.protocol import Reward


class Compiled(Reward):
    """Base class of values that `fastguide.ops.evaluate` computes.

    Attributes:
        kind: which kernel does, one of those in ``fastguide/ops/evaluate.py``.
    """

    batch_invariant = True
    cheap = True
    kind: str

    def check_columns(self, columns: int) -> None:
        """Raise ValueError unless a state may have that many numbers or tokens."""
        raise NotImplementedError

    def arguments(self, dtype: torch.dtype) -> tuple[list[Tensor], list[int]]:
        """Return the parameters and settings that the kernel reads for states of a dtype."""
        raise NotImplementedError

    def __call__(self, x0: Any) -> Tensor:
        """Return float32 ``[n]`` values of the states ``x0``."""
        return ops.evaluate(self, x0)


def parameter(name: str, x: Any, shape: Sequence[int | str], *, forbids: bool = False) -> Tensor:
    """Return ``x`` as a float32 tensor of its own on the CPU, checked.

    Args:
        name: for messages.
        x: a tensor, an array or a nested list.
        shape: its sizes; a letter stands for any size of 1 or more.
        forbids: whether ``-inf`` is let through.
    """
    tensor = torch.as_tensor(x, device="cpu").detach()
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise TypeError(f"{name}: expected real numbers, got {tensor.dtype}")
    fits = len(shape) == tensor.dim() and all(
        got == size or (isinstance(size, str) and got > 0) for size, got in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name}: expected shape [{', '.join(map(str, shape))}], got {list(tensor.shape)}")
    tensor = tensor.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    wrong = ~(tensor < torch.inf) | (~torch.isfinite(tensor) & (not forbids))
    if bool(wrong.any()):
        at = wrong.nonzero()[0].tolist()
        allowed = "finite numbers or -inf" if forbids else "finite numbers"
        raise ValueError(f"{name}: {float(tensor[tuple(at)])} at {at}; expected {allowed} in float32")
    return tensor


def number(name: str, x: Any) -> Tensor:
    """Return a finite number as float32 ``[1]``."""
    if isinstance(x, Tensor) and x.numel() == 1:
        x = x.reshape(())
    return parameter(name, x, []).reshape(1)
