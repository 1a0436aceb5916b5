"""How large the tiles of kernels are and how many warps work on one: a default, or what was measured on the device at hand.

Every `Config` of a kernel gives the same bits, so the choice is one of time alone. ``python -m fastguide.triton.tune`` measures
and keeps what is faster than the default in a file of the user's cache, one a device; a launcher looks up the kernel and the
power of two of its size in a dictionary that is filled once a process and device. Without such a file the defaults run.

``triton.autotune`` is not used: it measures in the middle of a run, where it waits for the device and cannot be captured in a
graph; it does so anew for each value of its key, here each number of particles; it launches a kernel again and again, which
one that appends, counts or moves in place does not bear; and the interpreter knows nothing of it. Nor is ``num_stages`` a
choice: it pipelines loops around matrix products, and the code of these kernels is the same at any.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import triton

from fastguide.config import cache_folder
from fastguide.reference.select import BLOCK
from fastguide.triton._launch import Variant, interpreted


class Config(NamedTuple):
    """How a kernel is launched.

    Attributes:
        tile: items, words or logits that a program works on at a time, a power of two; where rows are longer, a row.
        warps: of a program, for a tile of that size.
    """

    tile: int
    warps: int = 4


_USUAL = (Config(1024), Config(2048, 8), Config(1024, 8), Config(512))
"""Eight items a thread, or four: where an item takes so many registers that no more would fit."""
_LIGHT = (Config(1024), Config(2048), Config(4096, 8), Config(512))
"""Where an item takes few registers, sixteen a thread as well, so that more loads are under way."""
_OF_BLOCK = (Config(BLOCK, 8), Config(BLOCK, 16))
"""A block of items is a tile by contract."""
_NARROW = (Config(512), Config(1024, 8), Config(512, 8), Config(256))
"""Half the usual tile: a weight and its prefix take four registers."""
_WIDE = (Config(2048, 8), Config(2048, 16))
"""Four blocks of 512 logits at a time: of 1, 2 and 4 what spills no register anywhere."""

CONFIGS: dict[str, tuple[Config, ...]] = {
    "_blocks.weigh": _OF_BLOCK,
    "_blocks.fold_blocks": (Config(1024),),
    "_blocks.end_slots": (Config(BLOCK, 8),),
    "_blocks.draw_points": _LIGHT,
    "_blocks.count_ancestors": _LIGHT,
    "_blocks.count_vacant": (*_OF_BLOCK, Config(BLOCK, 4)),
    "_blocks.count_surplus": _OF_BLOCK,
    "_blocks.fill": _LIGHT,
    "_blocks.take": _LIGHT,
    "evaluate._sum_columns": (Config(32), Config(64), Config(128), Config(64, 8)),
    "evaluate._layer": (Config(4096), Config(4096, 8), Config(2048), Config(8192, 8)),
    "evaluate._add_products": (Config(32), Config(64), Config(128), Config(32, 1)),
    "evaluate._check_tokens": (Config(4096), Config(2048), Config(4096, 8), Config(1024)),
    "evaluate._best_windows": (Config(1024, 8), Config(512)),
    "evaluate._count_motifs": _USUAL,
    "evaluate._potts_rows": _USUAL,
    "evaluate._call": (Config(32), Config(128), Config(32, 1)),
    "gaussian_step._combine": (Config(1024), Config(2048, 8), Config(2048), Config(512)),
    "log_ratio._gaussian": (Config(4), Config(8), Config(4, 2), Config(8, 8)),
    "log_ratio._list_revealed": (Config(1024), Config(1024, 8), Config(512)),
    # Two rows of weights in registers.
    "log_ratio._weigh_narrow": (Config(512, 8), Config(256)),
    "log_ratio._weigh_wide": _WIDE,
    "log_ratio._add_terms": (Config(128), Config(64, 2), Config(256, 8)),
    "masked_step._change": (Config(1024), Config(2048, 8), Config(1024, 8)),
    "masked_step._find_ranked": _USUAL,
    "masked_step._draw_narrow": _NARROW,
    "masked_step._draw_wide": _WIDE,
    "masked_step._rank_narrow": _NARROW,
    "masked_step._rank_wide": _WIDE,
    "move.check": _LIGHT,
    "move.move_rows": (*_LIGHT, Config(4096)),
    "reweight_select.follow": _LIGHT,
    "reweight_select.reweigh_blocks": _OF_BLOCK,
    "reweight_select.reweight_rows": (Config(1024), Config(2048, 8)),
    "seeds._expand_seeds": (Config(256), Config(1024)),
    "select.score": _USUAL,
    "select.select_rows": _USUAL,
    "unique.claim": (Config(1024), Config(512), Config(1024, 8)),
    "unique.hash_rows": (Config(1024), Config(2048, 8), Config(512)),
    "unique.mark": _LIGHT,
    "unique.name": _LIGHT,
}
"""The configurations of each kernel, by module and name; the first is the default.

None spills a register for sm_80, sm_90 or sm_100 (``bench/triton_aot.py``): what did is left out.
"""

_INTERPRETED = 16
"""How much larger default tiles of `_ENLARGED` are where they are interpreted: a program then costs the same at any size."""
_ENLARGED = ("evaluate", "gaussian_step", "log_ratio", "masked_step")

Choices = Mapping[tuple[str, int], Config]
"""Configurations by kernel and size class."""


def _default(kernel: str) -> Config:
    tile, warps = CONFIGS[kernel][0]
    enlarged = interpreted() and kernel.split(".")[0] in _ENLARGED
    return Config(tile * _INTERPRETED if enlarged else tile, warps)


_defaults = {kernel: _default(kernel) for kernel in CONFIGS}
_choices: dict[torch.device, Choices] = {}


def config(kernel: str, size: int, device: torch.device) -> Config:
    """Return how to launch a kernel on a device; reads nothing from it.

    Args:
        kernel: a key of `CONFIGS`.
        size: how much there is to do, in rows, particles or items as the launcher counts them.
    """
    chosen = _choices.get(device)
    if chosen is None:
        chosen = _choices[device] = read_choices(device_name(device))
    return chosen.get((kernel, size_class(size)), _defaults[kernel])


def forget() -> None:
    """Read kept choices anew when kernels are next launched."""
    _choices.clear()


def size_class(size: int) -> int:
    """Return the exponent of the least power of two that is not below ``size``."""
    return max(size - 1, 0).bit_length()


def device_name(device: torch.device) -> str:
    """Return the name under which choices for a device are kept."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "interpreter"


class Fixed(dict[tuple[str, int], Config]):
    """Choices of one configuration a kernel, whatever the size; ``asked`` gets the kernels looked up, and at what sizes."""

    def __init__(self, configs: Mapping[str, Config]) -> None:
        super().__init__()
        self.configs, self.asked = configs, dict[str, set[int]]()

    def get(self, key: tuple[str, int], default: Any = None) -> Any:
        """Return the configuration of the kernel of ``key``."""
        self.asked.setdefault(key[0], set()).add(key[1])
        return self.configs.get(key[0], default)


@contextmanager
def fixed(device: torch.device, configs: Mapping[str, Config]) -> Iterator[Fixed]:
    """Launch kernels on a device as ``configs`` say, by name, and others by default: to compare configurations."""
    before, now = _choices.get(device), Fixed(configs)
    _choices[device] = now
    try:
        yield now
    finally:
        del _choices[device]
        if before is not None:
            _choices[device] = before


def variants(kernel: Any, make: Callable[[Config], Variant]) -> list[Variant]:
    """Return the variant of each configuration of a kernel, a jitted function, for compilation without a GPU."""
    first, *others = CONFIGS[f"{kernel.fn.__module__.rpartition('.')[2]}.{kernel.fn.__name__}"]
    return [make(first), *(make(other)._replace(config=(other.tile, other.warps)) for other in others)]


def cache_path(name: str) -> Path:
    """Return the file that keeps what was measured on devices of a name."""
    return cache_folder() / "triton" / f"{re.sub(r'[^A-Za-z0-9]+', '_', name)}.json"


@functools.cache
def fingerprint() -> str:
    """Return a hash of the kernels' sources, device functions included: what was measured holds for these alone."""
    found = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _origin(name: str) -> dict[str, str]:
    return {"device": name, "triton": triton.__version__, "kernels": fingerprint()}


def read_choices(name: str) -> dict[tuple[str, int], Config]:
    """Return what is kept for devices of a name; with a `RuntimeWarning` nothing, where that is not to be relied on."""
    path = cache_path(name)
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        for what, here in _origin(name).items():
            if kept[what] != here:
                raise ValueError(f"{what} is {kept[what]!r}, here {here!r}")
        return {
            (kernel, int(size)): _admissible(kernel, chosen)
            for kernel, sizes in kept["choices"].items()
            for size, chosen in sizes.items()
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        told = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        warnings.warn(
            f"{path}: ignored ({told}), kernels run with their defaults; remove it, or measure anew with "
            "`python -m fastguide.triton.tune`",
            RuntimeWarning,
            stacklevel=3,
        )
        return {}


def _admissible(kernel: str, chosen: Any) -> Config:
    found = Config(*chosen)
    if found not in CONFIGS[kernel]:
        raise ValueError(f"{kernel} has no configuration {list(chosen)}")
    return found


def write_choices(name: str, choices: Choices) -> Path:
    """Keep choices for devices of a name, in one step: a reader finds the old file or the new one. Return where."""
    sizes: dict[str, dict[str, Config]] = {}
    for (kernel, size), chosen in sorted(choices.items()):
        sizes.setdefault(kernel, {})[str(size)] = chosen
    path = cache_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".json")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump({**_origin(name), "choices": sizes}, file, indent=1)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path
