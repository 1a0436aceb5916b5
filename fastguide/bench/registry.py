"""The benchmarks by name; each is a file of this package with ``cases(sizes)`` and ``bars()``."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from importlib import import_module

from fastguide.bench.case import Bar, Case, Sizes

KERNELS = ("select", "reweight_select", "move", "masked_step", "gaussian_step", "evaluate", "unique")
WORKLOADS = ("guided_step",)


def choose(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return the kernels named, all where None.

    Raises:
        ValueError: there is no such benchmark.
    """
    for name in names or ():
        if name not in KERNELS:
            near = difflib.get_close_matches(name, KERNELS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(KERNELS)}"
            raise ValueError(f"ops: no benchmark {name!r}; {hint}")
    return tuple(names or KERNELS)


def cases(name: str, sizes: Sizes) -> Iterator[Case]:
    """Yield the cases of a benchmark, each built when it is asked for."""
    yield from import_module(f"fastguide.bench.{name}").cases(sizes)


def bars() -> Iterator[Bar]:
    """Yield every figure that has to be reached."""
    for name in (*KERNELS, *WORKLOADS):
        yield from import_module(f"fastguide.bench.{name}").bars()
