from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fastguide.deferred import Deferred, deferred
from fastguide.ops import (
    evaluate,
    gaussian_log_ratio,
    gaussian_step,
    masked_log_ratio,
    masked_mode,
    masked_step,
)
from fastguide.values.compiled import MotifCount
from tests.specs import SPECS, OpSpec, masked_states
from tests.triton.agreement import NoHostReads, assert_agrees
from tests.triton.device import DEVICE

pytest.importorskip("triton")

TOKENS_AND_VALUES = {
    "masked_step",
    "masked_mode",
    "gaussian_step",
    "gaussian_log_ratio",
    "masked_log_ratio",
    "evaluate",
}


@pytest.mark.parametrize("spec", [s for s in SPECS if s.name in TOKENS_AND_VALUES], ids=lambda s: s.name)
def test_samples_of_every_operation_agree(spec: OpSpec) -> None:
    for arguments in spec.samples():
        assert_agrees(spec.call, spec.name, **arguments)


def all_of_a_step(tokens: Tensor, logits: Tensor, x: Tensor) -> list[Tensor]:
    groups = {"seed": torch.tensor([5, 6], device=DEVICE)}
    pull = {"shift": torch.ones_like(logits), "lengths": torch.tensor([9, 4], device=DEVICE)}
    counts = torch.tensor([2, 3], device=DEVICE)
    sigma = torch.tensor([0.5, 0.25], device=DEVICE)
    linear = {"x_coefficient": 0.9, "prediction_coefficient": 0.1, "sigma": sigma}
    revealed = masked_step(tokens, logits, reveal_probability=0.5, step=2, backend="triton", **groups, **pull)
    noisy = gaussian_step(x, x, shift=x, **linear, **groups, backend="triton")
    filled = masked_mode(tokens, logits, rule="draw", **groups, backend="triton")
    return [
        revealed,
        masked_step(tokens, logits, reveal_count=counts, order="confidence", top_p=0.9, **groups, backend="triton"),
        filled,
        noisy,
        masked_log_ratio(tokens, revealed, logits, **pull, backend="triton"),
        gaussian_log_ratio(noisy, x, x, shift=x, **linear, backend="triton"),
        evaluate(MotifCount([1, 2], 22), filled, backend="triton"),
    ]


def test_nothing_is_read_from_the_device_where_errors_are_read_later() -> None:
    tokens, logits = (x.to(DEVICE) for x in masked_states(4, 9, 22))
    x = torch.randn(4, 7, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    expected = all_of_a_step(tokens, logits, x)
    later = Deferred()
    with deferred(later), NoHostReads():
        got = all_of_a_step(tokens, logits, x)
    later.check()
    assert all(torch.equal(a, b) for a, b in zip(expected, got, strict=True))


def test_an_error_read_later_is_that_of_the_first_bad_row() -> None:
    tokens, logits = (x.to(DEVICE) for x in masked_states(4, 9, 22, masked=1.0))
    logits[2, 1] = torch.nan
    later = Deferred()
    with deferred(later):
        children = masked_step(tokens, logits, reveal_probability=1.0, backend="triton")
    assert int(children.amin()) >= 0
    assert int(children.amax()) == 22  # the mask stays where nothing could be drawn
    with pytest.raises(ValueError, match=f"masked_step: refused a value at flat index {2 * 9 + 1}"):
        later.check()
