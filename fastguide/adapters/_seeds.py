"""Seeds from the random state that the user of a peer has set: reruns agree, and two calls in a row differ."""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

_END = 2**63 - 1


def torch_seed() -> int:
    """Draw a seed from the state that ``torch.manual_seed`` sets."""
    return int(torch.randint(_END, (), dtype=torch.int64, device="cpu"))


def generator_seed(generator: torch.Generator | list[torch.Generator]) -> int:
    """Draw a seed from a generator, of a list from the first."""
    first = generator[0] if isinstance(generator, list) else generator
    return int(torch.randint(_END, (), dtype=torch.int64, generator=first, device=first.device))


def seed_of_bits(tensor: Tensor) -> int:
    """Return a seed that is a hash of all bits of a tensor."""
    bits = tensor.detach().to("cpu").contiguous().view(torch.uint8).numpy().tobytes()
    return int.from_bytes(hashlib.blake2b(bits, digest_size=8).digest(), "little") & _END


def numpy_seed() -> int:
    """Draw a seed from the state that ``np.random.seed`` sets."""
    return int(np.random.randint(_END, dtype=np.int64))  # noqa: NPY002 - the peers' users seed the legacy generator
