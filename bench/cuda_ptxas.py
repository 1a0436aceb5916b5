"""What nvcc makes of the CUDA kernels: registers, shared memory, stack and spills of each, for several architectures.

``python -m bench.cuda_ptxas`` compiles ``csrc/cuda/*.cu`` and writes ``bench/results/cuda_ptxas.{json,md}``; ``--check``
only compares, and fails where a kernel spills.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "cuda_ptxas.json"
ARCHITECTURES = (80, 90, 100)
_FLAGS = ("-std=c++17", "-O3", "-fmad=false", "--Werror", "all-warnings", "-Xptxas", "-v")


def compile_all(architectures: tuple[int, ...] = ARCHITECTURES) -> list[dict[str, Any]]:
    """Return a row for every kernel and architecture."""
    jobs = [(path, arch) for path in sorted((ROOT / "csrc" / "cuda").glob("*.cu")) for arch in architectures]
    with ThreadPoolExecutor(2) as pool:
        rows = [row for found in pool.map(lambda job: _compile(*job), jobs) for row in found]
    return sorted(rows, key=lambda row: (row["kernel"], row["architecture"]))


def _compile(path: Path, arch: int) -> list[dict[str, Any]]:
    command = ["nvcc", *_FLAGS, f"-I{ROOT / 'csrc'}", f"-gencode=arch=compute_{arch},code=sm_{arch}"]
    done = subprocess.run([*command, "-c", str(path), "-o", "/dev/null"], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"nvcc on {path.name} for sm_{arch}:\n{done.stderr}")
    return parse(done.stderr, path.stem, arch)


def parse(report: str, stem: str, arch: int) -> list[dict[str, Any]]:
    """Read what ``-Xptxas -v`` says of the kernels of one file."""
    rows = []
    for part in report.split("Compiling entry function '")[1:]:
        numbers = {
            "registers": r"Used (\d+) registers",
            "shared": r"(\d+) bytes smem",
            "stack": r"(\d+) bytes stack frame",
            "spill_stores": r"(\d+) bytes spill stores",
            "spill_loads": r"(\d+) bytes spill loads",
        }
        found = {name: re.search(pattern, part) for name, pattern in numbers.items()}
        rows.append(
            {
                "kernel": f"{stem}: {_name(part[: part.index(chr(39))])}",
                "architecture": f"sm_{arch}",
                **{name: int(match[1]) if match else 0 for name, match in found.items()},
            }
        )
    return rows


def _name(mangled: str) -> str:
    """Return a kernel's name and template arguments, without the types of its parameters."""
    done = subprocess.run(["c++filt", mangled], capture_output=True, text=True, check=True).stdout.strip()
    name = done.replace("fg::cuda::(anonymous namespace)::", "").removeprefix("void ")
    return name[: name.index("(")] if "(" in name else name


def spilling(rows: list[dict[str, Any]]) -> list[str]:
    """Return the kernels that keep anything in local memory."""
    return [
        f"{row['kernel']} on {row['architecture']}: {row['stack']} bytes of stack, {row['spill_stores']} spilled"
        for row in rows
        if row["stack"] or row["spill_stores"] or row["spill_loads"]
    ]


def _markdown(rows: list[dict[str, Any]], compiler: str) -> str:
    lines = [
        "# What nvcc makes of the CUDA kernels",
        "",
        f"{compiler}; `-fmad=false`. Bytes of shared memory are static. No kernel keeps anything in local memory.",
        "",
        "| kernel | architecture | registers | shared, bytes | stack, bytes | spills, bytes |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in rows:
        spills = row["spill_stores"] + row["spill_loads"]
        lines.append(
            f"| `{row['kernel']}` | {row['architecture']} | {row['registers']} | {row['shared']} | {row['stack']} | {spills} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("--architectures", type=int, nargs="+", default=ARCHITECTURES)
    arguments = parser.parse_args()
    if shutil.which("nvcc") is None:
        print("SKIPPED: no nvcc on the PATH")
        return
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    match = re.search(r"V([\d.]+)", version)
    compiler = f"nvcc {match[1]}" if match else "nvcc"
    rows = compile_all(tuple(arguments.architectures))
    spills = spilling(rows)
    print(f"{compiler}: {len(rows)} kernels, at most {max(row['registers'] for row in rows)} registers")
    if spills:
        sys.exit("\n".join(spills))
    if not arguments.check:
        RESULTS.write_text(json.dumps({"compiler": compiler, "kernels": rows}, indent=1) + "\n")
        RESULTS.with_suffix(".md").write_text(_markdown(rows, compiler))


if __name__ == "__main__":
    main()
