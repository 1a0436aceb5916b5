"""Where the test that runs has its tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DEVICE = torch.device("cpu")


def here(x: Any) -> Any:
    """Return ``x``, or what a list, tuple or dictionary holds, on that device."""
    if isinstance(x, Tensor):
        return x.to(DEVICE)
    if isinstance(x, dict):
        return {name: here(value) for name, value in x.items()}
    if isinstance(x, (list, tuple)):
        return type(x)(map(here, x))
    return x


def back(x: Any) -> Any:
    """Return ``x``, or what a tuple holds, on the CPU."""
    return x.cpu() if isinstance(x, Tensor) else type(x)(*map(back, x)) if hasattr(x, "_fields") else x
