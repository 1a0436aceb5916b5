"""Registration of operations with torch, so that ``torch.compile`` and ``torch.library.opcheck`` see them.

An eager call does not pass through here: it would cost more than a small kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_library = torch.library.Library("fastguide", "DEF")


def register(schema: str, implementation: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """Define ``torch.ops.fastguide.<name>`` and return it.

    Args:
        schema: ``"name(Tensor x, ...) -> Tensor"``; outputs are new tensors, never views of inputs.
        implementation: takes the arguments of the schema, on any device.
        fake: the same for tensors without data: it returns tensors of the right shapes and dtypes.
    """
    name = schema[: schema.index("(")]
    _library.define(schema)
    _library.impl(name, implementation, "CompositeExplicitAutograd")
    torch.library.register_fake(f"fastguide::{name}", fake, lib=_library)
    op: Callable[..., Any] = getattr(torch.ops.fastguide, name).default
    return op
