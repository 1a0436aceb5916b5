"""The built extension: what it links, what it shows, and where its instructions above the baseline stand."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fastguide import _cpu

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux" or shutil.which("objdump") is None, reason="needs Linux and binutils"
)
EXTENSION = Path(_cpu.__file__)


def tool(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_openmp_is_the_one_of_the_system():
    needed = re.findall(r"NEEDED.*\[(.*)\]", tool("readelf", "--dynamic", "--wide", str(EXTENSION)))
    assert "libgomp.so.1" in needed
    assert not [name for name in needed if name.startswith(("libtorch", "libc10", "libpython"))]
    symbols = tool("nm", "--dynamic", "--undefined-only", str(EXTENSION))
    assert "GOMP_parallel" in symbols  # not a copy of it inside


def test_only_the_entry_of_the_module_is_exported():
    lines = tool("nm", "--dynamic", "--defined-only", "--extern-only", str(EXTENSION)).splitlines()
    assert [line.split()[-1] for line in lines] == ["PyInit__cpu"]


def test_no_memory_is_writable_and_executable():
    headers = tool("readelf", "--program-headers", "--wide", str(EXTENSION))
    assert "RWE" not in headers
    assert re.search(r"GNU_STACK.* RW ", headers)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels of x86-64")
def test_instructions_above_the_baseline_stand_in_their_level_alone():
    """A function of another name that a level's compiler emitted could be linked into the baseline."""
    allowed = {"avx2": 0, "avx512": 0}
    name, strangers = "", set()
    for line in tool("objdump", "--disassemble", "--demangle", "--no-show-raw-insn", str(EXTENSION)).splitlines():
        if header := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            name = header[1]
        elif instruction := re.match(r"\s+[0-9a-f]+:\s+(v[a-z]\S*|k\S+)\s+(.*)", line):
            wide = "zmm" in instruction[2] or re.search(r"%k[0-7]|[xy]mm(1[6-9]|2\d|3[01])", instruction[2])
            level = next((level for level in allowed if f"fg::{level}::" in name), None)
            if level is None or (wide and level == "avx2"):
                strangers.add(f"{name}: {instruction[0].strip()}")
            else:
                allowed[level] += 1
    assert not strangers, sorted(strangers)[:5]
    assert all(allowed.values()), allowed  # so that the test has something to look at
