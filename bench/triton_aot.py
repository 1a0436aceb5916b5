"""Compile every Triton kernel without a GPU, and say what each takes: ``python -m bench.triton_aot``.

Compiles the ``VARIANTS`` of the modules of ``fastguide.triton``, in every configuration of ``fastguide.triton.tuning``, for
sm_80, sm_90 and sm_100, and writes ``bench/results/triton_aot.json``, and of the default ones a table, ``triton_aot.md``.
``--check`` compiles the default ones, with ``--all`` every one, writes nothing, and fails where a kernel spills or cannot be
launched.
Triton must not be interpreting kernels (``TRITON_INTERPRET``).
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import fastguide.triton
from fastguide.triton._launch import EXACT, Variant

ARCHITECTURES = (80, 90, 100)
RESULTS = Path(__file__).parent / "results" / "triton_aot.json"


@dataclass(frozen=True)
class Usage:
    """What a compiled kernel takes: registers a thread, bytes of shared memory a program.

    What is spilled lies in the stack frame, bytes a thread; ``local`` is what else is in local memory. ``config`` is tile and
    warps where they are not the default.
    """

    module: str
    kernel: str
    label: str
    architecture: int
    warps: int
    config: tuple[int, int] | None
    registers: int
    shared: int
    stack: int
    local: int


def variants() -> Iterator[tuple[str, Variant]]:
    """Yield the variants of every module of kernels, with its name."""
    for found in pkgutil.iter_modules(fastguide.triton.__path__):
        module = importlib.import_module(f"fastguide.triton.{found.name}")
        for variant in getattr(module, "VARIANTS", ()):
            yield found.name, variant


def compile_variant(variant: Variant, architecture: int) -> Any:
    """Compile for an architecture; pointers are aligned to 16 bytes, as torch's are."""
    kernel = variant.kernel
    names = [name for name in kernel.arg_names if name not in variant.constants]
    types = variant.types.split()
    if len(names) != len(types):
        raise ValueError(f"{kernel.__name__}: {len(types)} types for the arguments {', '.join(names)}")
    signature = dict(zip(names, types, strict=True))
    signature |= dict.fromkeys(variant.constants, "constexpr")
    attributes = {
        (i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if signature[name].startswith("*")
    }
    source = ASTSource(kernel, signature, variant.constants, attributes)
    target = GPUTarget("cuda", architecture, 32)
    return triton.compile(source, target=target, options={**EXACT, "num_warps": variant.warps})


def usage(cubin: bytes) -> dict[str, int]:
    """Return registers, shared memory, stack and local memory of a cubin, by Triton's own cuobjdump."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        out = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    fields = dict(re.findall(r"\b(REG|STACK|SHARED|LOCAL):(\d+)", out.stdout))
    return {
        "registers": int(fields["REG"]),
        "shared": int(fields["SHARED"]),
        "stack": int(fields["STACK"]),
        "local": int(fields["LOCAL"]),
    }


def measure(defaults: bool = False) -> list[Usage]:
    """Compile everything, or default configurations alone, for all architectures, in two processes."""
    wanted = [i for i, (_, variant) in enumerate(variants()) if variant.config is None or not defaults]
    jobs = [(i, architecture) for i in wanted for architecture in ARCHITECTURES]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        return list(pool.map(_measure, jobs))


def _measure(job: tuple[int, int]) -> Usage:
    (module, variant), architecture = list(variants())[job[0]], job[1]
    compiled = compile_variant(variant, architecture)
    used = usage(compiled.asm["cubin"]) | {"shared": compiled.metadata.shared}
    return Usage(module, variant.kernel.__name__, variant.label, architecture, variant.warps, variant.config, **used)


def spilling(rows: list[Usage]) -> list[Usage]:
    """Return the kernels that keep anything in local memory."""
    return [row for row in rows if row.local + row.stack > 0]


def refused(rows: list[Usage]) -> list[Usage]:
    """Return the kernels with more registers or shared memory than every multiprocessor has for one program."""
    return [row for row in rows if row.registers * row.warps * 32 > 65_536 or row.shared > 48 * 1024]


def table(rows: list[Usage]) -> str:
    """Return a Markdown table of the default configurations, one kernel a line, architectures side by side."""
    lines = [
        "| module | kernel | variant | warps | "
        + " | ".join(f"sm_{a}: registers, shared, local" for a in ARCHITECTURES)
        + " |",
        "|---|---|---|---|" + "---|" * len(ARCHITECTURES),
    ]
    kernels: dict[tuple[str, str, str, int], dict[int, Usage]] = {}
    for row in (row for row in rows if row.config is None):
        kernels.setdefault((row.module, row.kernel, row.label, row.warps), {})[row.architecture] = row
    for names, used in kernels.items():
        cells = [f"{u.registers}, {u.shared}, {u.local + u.stack}" for u in (used[a] for a in ARCHITECTURES)]
        lines.append("| " + " | ".join(map(str, (*names, *cells))) + " |")
    return "\n".join(lines) + "\n"


def _name(row: Usage) -> str:
    of = f", tile and warps {row.config}" if row.config else ""
    return f"{row.module}.{row.kernel} ({row.label}{of}) for sm_{row.architecture}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail where a kernel spills")
    parser.add_argument("--all", action="store_true", help="check every configuration, not the default ones alone")
    arguments = parser.parse_args()
    if triton.knobs.runtime.interpret:
        sys.exit("TRITON_INTERPRET is set: interpreted kernels cannot be compiled; unset it")
    rows = measure(defaults=arguments.check and not arguments.all)
    for row in spilling(rows):
        print(f"{_name(row)} keeps {row.local + row.stack} bytes a thread in local memory")
    for row in refused(rows):
        print(f"{_name(row)} takes {row.registers} registers a thread, {row.shared} bytes of shared memory: too many")
    if arguments.check:
        sys.exit(1 if spilling(rows) or refused(rows) else 0)
    head = f"Triton {triton.__version__}. Bytes of shared memory a program, of local memory a thread.\n\n"
    lines = ",\n".join(json.dumps(asdict(row)) for row in rows)
    RESULTS.write_text(f'{{"triton": {json.dumps(triton.__version__)}, "kernels": [\n{lines}\n]}}\n')
    RESULTS.with_suffix(".md").write_text("# Triton kernels as compiled\n\n" + head + table(rows))
    print(table(rows))


if __name__ == "__main__":
    main()
