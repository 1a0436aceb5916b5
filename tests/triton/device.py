"""Where the tests of Triton kernels run, and why not."""

from __future__ import annotations

import importlib.util
import os

import torch

_INTERPRETED = os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")
DEVICE = torch.device("cuda" if torch.cuda.is_available() and not _INTERPRETED else "cpu")

WHY_NOT: str | None = None
if importlib.util.find_spec("triton") is None:
    WHY_NOT = "Triton is not installed: pip install triton"
elif DEVICE.type == "cpu" and not _INTERPRETED:
    WHY_NOT = "no GPU, and kernels are not interpreted: TRITON_INTERPRET=1 pytest tests/triton"
