from __future__ import annotations

import pytest
import torch

from tests.specs_masked import MASKED_SPECS, OpSpec


@pytest.mark.parametrize("spec", MASKED_SPECS, ids=lambda s: s.name)
def test_operator_is_registered_as_torch_expects(spec: OpSpec) -> None:
    for arguments in spec.samples():
        torch.library.opcheck(spec.op, arguments)
