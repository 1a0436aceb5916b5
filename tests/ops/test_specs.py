"""What holds of every operation: backends agree bit for bit, and torch finds the registration sound."""

from __future__ import annotations

import pytest
import torch

from fastguide import ops
from tests.specs import BUILDS, SPECS, OpSpec, assert_same_bits, build


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_build_gives_the_bits_of_the_reference(spec: OpSpec) -> None:
    for i, sample in enumerate(spec.samples()):
        expected = spec.call(**sample, backend="torch")
        for level, threads in BUILDS:
            with build(level, threads):
                got = spec.call(**sample, backend="cpu")
            assert_same_bits(expected, got, f"{spec.name}, sample {i}, {level}, {threads} threads")


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_registration_passes_opcheck(spec: OpSpec) -> None:
    for arguments in spec.registered():
        torch.library.opcheck(getattr(torch.ops.fastguide, spec.name).default, arguments)


def test_the_mutating_form_of_move_passes_opcheck() -> None:
    tensors = [torch.arange(12.0).view(6, 2)]
    torch.library.opcheck(torch.ops.fastguide.move_.default, (tensors, torch.tensor([[0, 0, 2], [1, 1, 2]]), None))


def test_every_operation_has_a_spec() -> None:
    public = {name for name in ops.__all__ if name.islower()}
    assert public == {spec.name for spec in SPECS}
