"""How much memory a run may take, and how it calls networks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

_CPU = torch.device("cpu")
_SMALL_CALL = 64
_LARGE_CALL = 4096
_CALL_BYTES = 2**26

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


def fixed_batches(n: int, size: int, device: torch.device) -> Iterator[tuple[Tensor, int]]:
    """Yield ``(rows, real)`` that cut ``n`` rows into calls of exactly ``size``.

    ``rows`` is ``[size]`` int64; the first ``real`` of them are new, and the last call repeats its last row to be full.
    """
    for start in range(0, n, size):
        rows = torch.arange(start, start + size, device=device).clamp_(max=n - 1)
        yield rows, min(size, n - start)


def default_call_rows(children: int, row_bytes: int) -> int:
    """Return the fixed number of rows of a network call: 64, or more where a group has many children.

    One part in 64 of the children of a group wastes at most that share on padding, and spares large runs thousands of small
    calls a step. It depends on what a group is and on nothing else (not on the memory of the machine or on groups beside
    it), so that a group's result does not either.

    Args:
        children: of one group.
        row_bytes: of one row of the network's output; a call's output is held below 64 MB where rows allow.
    """
    rows = min(max(_SMALL_CALL, children // 64), _LARGE_CALL, max(_SMALL_CALL, _CALL_BYTES // row_bytes))
    return min(rows, children)


def total_bytes(device: torch.device = _CPU) -> int:
    """Return the bytes of a device's memory; of main memory 4 GiB where the machine does not tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    names = getattr(os, "sysconf_names", {})
    if not {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= set(names):
        return 4 << 30
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def available_bytes(device: torch.device = _CPU) -> int:
    """Return the bytes of a device's memory that are free; of main memory, those to be had without swapping.

    On a GPU what torch keeps for reuse is free too: nobody but this process could have it, and this process can.
    """
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    try:
        with open("/proc/meminfo", encoding="ascii") as info:
            for line in info:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return total_bytes() // 2


def parse_bytes(text: str) -> int:
    """Return the number of bytes in ``"512MB"``, ``"2 GiB"``, ``"1e9"`` (units are powers of 1,024)."""
    match = re.fullmatch(r"\s*([0-9.]+(?:e[0-9]+)?)\s*([kmgt]?)i?b?\s*", text.lower())
    if match is None:
        raise ValueError(f"memory: cannot read {text!r}; write for example 'auto', '512MB' or '2GB'")
    try:
        return int(float(match[1]) * _UNITS[match[2]])
    except (ValueError, OverflowError):
        raise ValueError(f"memory: {text!r} is no number of bytes; write for example '512MB' or '2GB'") from None


@dataclass(frozen=True)
class Memory:
    """Settings of memory and network calls. Only ``ragged`` can change a result; the others change cost.

    Args:
        limit: bytes for predictions and states that are kept from one step to the next, ``"auto"`` (a quarter of what
            is free on the device of the states when a run starts) or a text such as ``"2GB"``. What does not fit is computed
            again, and the trace counts it.
        micro_batch: most states that one denoiser call works on; None chooses from ``limit``.
        call_rows: the fixed number of rows of every call to a network that is not batch invariant; None: see
            `default_call_rows`. Part of the numerical contract: the last bits of a network's output depend on it.
        ragged: call networks with as many rows as there are, unpadded: cheaper for few rows, and results may then depend in
            the last bits on micro-batches, groups and merged states.
        merge: evaluate each distinct state once.
        remember: keep the rewards of clean samples that were evaluated before.
    """

    limit: int | str = "auto"
    micro_batch: int | None = None
    call_rows: int | None = None
    ragged: bool = False
    merge: bool = True
    remember: bool = True

    def __post_init__(self) -> None:
        for name in ("micro_batch", "call_rows"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"memory: {name}: expected a whole number of at least 1 or None, got {value!r}")
        if isinstance(self.limit, str):
            if self.limit != "auto":
                parse_bytes(self.limit)
        elif isinstance(self.limit, bool) or not isinstance(self.limit, int) or self.limit < 1:
            raise ValueError(f"memory: expected 'auto', a number of bytes or a text such as '2GB', got {self.limit!r}")

    @property
    def bytes(self) -> int:
        """The limit in bytes; of ``"auto"`` that of main memory, read now (see `on`)."""
        return self._bytes(_CPU)

    def on(self, device: torch.device) -> Memory:
        """Return these settings for a run on ``device``, ``"auto"`` read once and made a number."""
        return replace(self, limit=max(1, self._bytes(device)))

    def _bytes(self, device: torch.device) -> int:
        if isinstance(self.limit, int):
            return self.limit
        return available_bytes(device) // 4 if self.limit == "auto" else parse_bytes(self.limit)


def resolve_memory(memory: Memory | int | str) -> Memory:
    """Return the settings behind the ``memory`` argument of `fastguide.sample`."""
    if isinstance(memory, Memory):
        return memory
    if isinstance(memory, bool) or not isinstance(memory, (int, str)):
        raise TypeError(
            f"memory: expected 'auto', a number of bytes, a text such as '2GB' or fg.Memory(...), got "
            f"{type(memory).__name__}"
        )
    return Memory(limit=memory)
