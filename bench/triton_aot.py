"""Compile every Triton kernel without a GPU, and say what each takes: ``python -m bench.triton_aot [--write]``.

Reads the ``VARIANTS`` of the modules of ``fastguide.triton`` and compiles them for sm_80, sm_90 and sm_100. With ``--write``
the table goes to ``bench/results/triton_aot.md`` and ``.json``. Must not run where Triton interprets kernels.
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import fastguide.triton
from fastguide.triton._launch import EXACT, Variant

ARCHITECTURES = (80, 90, 100)
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Usage:
    """What a compiled kernel takes: registers a thread, bytes of shared memory a program, bytes spilled a thread."""

    module: str
    kernel: str
    label: str
    architecture: int
    warps: int
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


def measure(architectures: tuple[int, ...] = ARCHITECTURES) -> list[Usage]:
    """Compile everything for the architectures."""
    rows = []
    for module, variant in variants():
        for architecture in architectures:
            compiled = compile_variant(variant, architecture)
            used = usage(compiled.asm["cubin"]) | {"shared": compiled.metadata.shared}
            rows.append(Usage(module, variant.kernel.__name__, variant.label, architecture, variant.warps, **used))
    return rows


def table(rows: list[Usage]) -> str:
    """Return a Markdown table, one kernel a line, architectures side by side."""
    lines = [
        "| module | kernel | variant | warps | "
        + " | ".join(f"sm_{a}: registers, shared, local" for a in ARCHITECTURES)
        + " |",
        "|---|---|---|---|" + "---|" * len(ARCHITECTURES),
    ]
    kernels: dict[tuple[str, str, str, int], dict[int, Usage]] = {}
    for row in rows:
        kernels.setdefault((row.module, row.kernel, row.label, row.warps), {})[row.architecture] = row
    for names, used in kernels.items():
        cells = [f"{u.registers}, {u.shared}, {u.local + u.stack}" for u in (used[a] for a in ARCHITECTURES)]
        lines.append("| " + " | ".join(map(str, (*names, *cells))) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write bench/results/triton_aot.md and .json")
    arguments = parser.parse_args()
    if triton.knobs.runtime.interpret:
        sys.exit("TRITON_INTERPRET is set: interpreted kernels cannot be compiled; unset it")
    rows = measure()
    text = f"Triton {triton.__version__}; bytes of shared memory a program, of local memory a thread.\n\n{table(rows)}"
    print(text)
    if arguments.write:
        (RESULTS / "triton_aot.md").write_text("# Triton kernels as compiled\n\n" + text)
        (RESULTS / "triton_aot.json").write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
