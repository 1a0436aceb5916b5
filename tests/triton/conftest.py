"""These tests run Triton kernels: interpreted, ``TRITON_INTERPRET=1 pytest tests/triton``, or on a GPU."""

from __future__ import annotations

import pytest

from tests.triton.device import WHY_NOT


@pytest.fixture(autouse=True)
def _able_to_run() -> None:
    if WHY_NOT is not None:
        pytest.skip(WHY_NOT)
