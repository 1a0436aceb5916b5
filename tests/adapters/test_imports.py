"""Importing fastguide imports no peer and no adapter."""

from __future__ import annotations

import subprocess
import sys


def test_fastguide_knows_neither_its_adapters_nor_the_peers():
    code = "import sys, fastguide; print([m for m in sys.modules if m.split('.')[0] in"
    code += " ('particles', 'jax', 'blackjax', 'diffusers') or m.startswith('fastguide.adapters')])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
