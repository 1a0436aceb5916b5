from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from fastguide.ops.masked_mode import masked_mode
from fastguide.ops.masked_step import masked_step
from tests.specs import builds, masked_states


def agree(tokens: Tensor, logits: Tensor, **settings: object) -> Tensor:
    """Assert that every build of the kernel gives the bits of the reference, and return them."""
    expected = masked_mode(tokens, logits, backend="torch", **settings)  # type: ignore[arg-type]
    for variant in builds():
        got = masked_mode(tokens, logits, backend="cpu", **settings)  # type: ignore[arg-type]
        assert torch.equal(got, expected), variant
    return expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("vocab", [1, 4, 16, 17, 20, 32, 33, 513, 5_000])
@pytest.mark.parametrize("rule", ["argmax", "draw"])
def test_kernel_agrees_with_reference(rule: str, vocab: int, dtype: torch.dtype) -> None:
    tokens, logits = masked_states(12, 70, vocab, dtype=dtype)
    bias = torch.randn(70, vocab, generator=torch.Generator().manual_seed(1))
    filled = agree(
        tokens,
        logits,
        rule=rule,
        bias=bias,
        seed=torch.tensor([5, 6, 7]),
        lengths=torch.tensor([70, 64, 2]),
        temperature=0.5,
    )
    padding = torch.arange(70) >= torch.tensor([70, 64, 2]).repeat_interleave(4)[:, None]
    kept = padding | (tokens != vocab)
    assert torch.equal(filled[kept], tokens[kept])
    assert (filled[~kept] < vocab).all()


def test_argmax_is_the_lowest_index_of_the_largest() -> None:
    tokens, logits = masked_states(9, 20, 30)
    logits = logits.round()
    filled = agree(tokens, logits)
    lowest = torch.where(logits == logits.amax(-1, keepdim=True), torch.arange(30), 30).amin(-1)
    assert torch.equal(filled, torch.where(tokens == 30, lowest, tokens))
    assert torch.equal(masked_mode(tokens, logits, rule="draw", temperature=0.0), filled)


def test_draws_follow_the_softmax_from_a_stream_of_their_own() -> None:
    # Chi-square on 4 degrees of freedom: above 32 with probability 2e-6 if the law is right.
    logits = torch.tensor([0.0, 1.0, -1.0, -math.inf, 2.0, -4.0])
    tokens = torch.full((4_000, 64), 6)
    filled = masked_mode(tokens, logits.expand(4_000, 64, 6), rule="draw", seed=3)
    counts = filled.flatten().bincount(minlength=6).double()
    expected = logits.double().softmax(0) * filled.numel()
    assert counts[3] == 0
    alive = expected > 0
    assert float(((counts - expected)[alive] ** 2 / expected[alive]).sum()) < 32
    step = masked_step(tokens, logits.expand(4_000, 64, 6), reveal_probability=1.0, seed=3)[:, 0]
    assert 0.2 < float((filled == step).double().mean()) < 0.6


def test_rows_at_revealed_positions_are_not_read() -> None:
    tokens, logits = masked_states(9, 20, 30)
    poisoned = torch.where((tokens == 30)[..., None], logits, torch.nan)
    assert torch.equal(agree(tokens, poisoned), masked_mode(tokens, logits))


def test_slots_key_the_draws() -> None:
    tokens, logits = masked_states(9, 20, 30)
    whole = masked_mode(tokens, logits, rule="draw", seed=8, step=3)
    some = torch.tensor([7, 2, 4])
    assert torch.equal(masked_mode(tokens[some], logits[some], rule="draw", seed=8, step=3, slots=some), whole[some])


@pytest.mark.parametrize("rule", ["argmax", "draw"])
@pytest.mark.parametrize("vocab", [22, 1_000])
def test_bad_rows_are_named(rule: str, vocab: int) -> None:
    tokens, logits = masked_states(9, 20, vocab, masked=1.0)
    logits[8, 1] = -torch.inf  # among rows that are fine, as many as are taken at a time
    for backend in ("torch", "cpu"):
        for _ in builds():
            with pytest.raises(ValueError, match=r"logits\[8, 1\] forbids every token"):
                masked_mode(tokens, logits, rule=rule, backend=backend)
    logits[5, 19, 2] = torch.nan
    for backend in ("torch", "cpu"):
        for _ in builds():
            with pytest.raises(ValueError, match=r"logits\[5, 19, 2\] is nan"):
                masked_mode(tokens, logits, rule=rule, backend=backend)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_wrong_arguments_are_refused(backend: str) -> None:
    tokens, logits = masked_states(4, 6, 5)
    with pytest.raises(ValueError, match=r"rule: .*'mean'.*argmax, draw"):
        masked_mode(tokens, logits, rule="mean", backend=backend)
    with pytest.raises(ValueError, match="logits"):
        masked_mode(tokens, logits[:3], backend=backend)
    strange = tokens.clone()
    strange[2, 1] = -3
    with pytest.raises(ValueError, match=r"tokens\[2, 1\] is -3"):
        masked_mode(strange, logits, backend=backend)


def test_empty_inputs_give_empty_outputs() -> None:
    for backend in ("torch", "cpu"):
        for states, length in ((0, 3), (2, 0)):
            tokens = torch.zeros(states, length, dtype=torch.int64)
            assert masked_mode(tokens, torch.zeros(states, length, 4), backend=backend).shape == (states, length)


def test_compiles_into_one_graph() -> None:
    tokens, logits = masked_states(4, 6, 5)

    def decode(tokens: Tensor, logits: Tensor) -> Tensor:
        return masked_mode(tokens, logits * 2) + 1

    assert torch.equal(
        torch.compile(decode, backend="aot_eager", fullgraph=True)(tokens, logits), decode(tokens, logits)
    )
