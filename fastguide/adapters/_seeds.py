"""Seeds from the random state that the user of a peer has set: reruns agree, and two calls in a row differ."""

from __future__ import annotations

import numpy as np
import torch

_END = 2**63 - 1


def torch_seed() -> int:
    """Draw a seed from the state that ``torch.manual_seed`` sets."""
    return int(torch.randint(_END, (), dtype=torch.int64, device="cpu"))


def numpy_seed() -> int:
    """Draw a seed from the state that ``np.random.seed`` sets."""
    return int(np.random.randint(_END, dtype=np.int64))  # noqa: NPY002 - the peers' users seed the legacy generator
