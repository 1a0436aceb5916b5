"""What Triton makes of its kernels, as ``bench/results/triton_aot.json`` has it: nothing in local memory."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEPT = json.loads((ROOT / "bench" / "results" / "triton_aot.json").read_text())["kernels"]


def test_no_kernel_spills() -> None:
    assert [row for row in KEPT if row["stack"] + row["local"] > 0] == []


def test_every_program_can_be_launched() -> None:
    for row in KEPT:
        assert row["registers"] * row["warps"] * 32 <= 65_536, row
        assert row["shared"] <= 48 * 1024, row


def test_every_kernel_is_listed_for_every_architecture() -> None:
    launched = set()
    for path in (ROOT / "fastguide" / "triton").glob("*.py"):
        text = path.read_text()
        kernels = set(re.findall(r"@triton\.jit.*\ndef (\w+)\(", text))
        launched |= {(path.stem, name) for name in re.findall(r"\b(\w+)\[(?=grid|tiles|\()", text) if name in kernels}
    for architecture in (80, 90, 100):
        listed = {(row["module"], row["kernel"]) for row in KEPT if row["architecture"] == architecture}
        assert launched - listed == set()


def test_every_configuration_is_listed() -> None:
    """Beside the default, for which ``config`` is None."""
    pytest.importorskip("triton")
    from fastguide.triton.tuning import CONFIGS

    for architecture in (80, 90, 100):
        listed: dict[str, set[tuple[int, ...] | None]] = {}
        for row in KEPT:
            if row["architecture"] == architecture:
                config = row["config"] and tuple(row["config"])
                listed.setdefault(f"{row['module']}.{row['kernel']}", set()).add(config)
        assert listed == {kernel: {None, *configs[1:]} for kernel, configs in CONFIGS.items()}


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"), reason="kernels are being interpreted")
def test_a_kernel_compiles_to_what_is_recorded() -> None:
    """Registers vary with the version of Triton; whether a kernel compiles and spills should not."""
    pytest.importorskip("triton")
    from bench.triton_aot import compile_variant, usage, variants

    variant = next(v for module, v in variants() if module == "move")
    used = usage(compile_variant(variant, 90).asm["cubin"])
    assert used["registers"] > 0
    assert used["stack"] == used["local"] == 0
