"""Run pytest on another build of the extension: ``python tests/native/with_extension.py FILE [pytest arguments]``."""

from __future__ import annotations

import importlib.util
import sys

import pytest

spec = importlib.util.spec_from_file_location("fastguide._cpu", sys.argv[1])
assert spec is not None
assert spec.loader is not None
sys.modules["fastguide._cpu"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["fastguide._cpu"])
sys.path.insert(0, "")  # as `python -m pytest` has it
sys.exit(pytest.main(sys.argv[2:]))
