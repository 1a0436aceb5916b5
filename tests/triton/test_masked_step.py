from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastguide.ops import masked_mode, masked_step
from tests.specs import masked_states
from tests.triton.agreement import assert_agrees
from tests.triton.device import DEVICE

pytest.importorskip("triton")


def agree(tokens: Tensor, logits: Tensor, **arguments: Any) -> Tensor:
    children: Tensor = assert_agrees(masked_step, str(list(arguments)), tokens=tokens, logits=logits, **arguments)[0]
    return children


def picked(states: int, particles: int) -> Tensor:
    return torch.randint(0, states, (particles,), generator=torch.Generator().manual_seed(1))


# states, length, vocabulary, particles, branch, reveal probability
SHAPES = [
    (6, 1, 1, 9, 2, 0.9),
    (5, 7, 4, 5, 1, 0.5),
    (33, 70, 22, 90, 3, 0.3),
    (12, 65, 33, 40, 2, 0.6),
    (4, 20, 512, 10, 2, 0.5),
    (3, 5, 513, 4, 2, 0.5),
    (3, 6, 9_001, 3, 4, 0.3),
    (1, 2, 50_258, 2, 2, 1.0),
]


DTYPES = (torch.float32, torch.float16, torch.bfloat16)
CASES = [(shape, dtype) for shape in SHAPES for dtype in DTYPES if dtype != torch.float16 or shape[2] <= 513]


@pytest.mark.parametrize(("shape", "dtype"), CASES, ids=str)
def test_draws_agree(shape: tuple[int, int, int, int, int, float], dtype: torch.dtype) -> None:
    states, length, vocab, particles, branch, probability = shape
    tokens, logits = masked_states(states, length, vocab, dtype=dtype)
    if dtype == torch.float16:
        tokens = tokens.int()
    agree(
        tokens,
        logits,
        reveal_probability=probability,
        ancestors=picked(states, particles),
        branch=branch,
        seed=5,
        step=3,
    )


@pytest.mark.parametrize("vocab", [22, 530])
def test_temperature_bias_and_shift_agree(vocab: int) -> None:
    tokens, logits = masked_states(*((6, 9) if vocab == 22 else (2, 5)), vocab)
    generator = torch.Generator().manual_seed(2)
    bias, shift = torch.randn(logits.shape[1:], generator=generator), torch.randn(*logits.shape, generator=generator)
    bias[..., 1], shift[..., 2] = -math.inf, -math.inf
    for temperature in (0.0, 0.3):
        agree(tokens, logits, reveal_probability=1.0, temperature=temperature, bias=bias[0], seed=2**63 + 11)
    children = agree(tokens, logits, reveal_probability=0.7, bias=bias, shift=shift, branch=2, temperature=3.0)
    drawn = children[(tokens[:, None].expand_as(children) == vocab) & (children != vocab)]
    assert not ((drawn == 1) | (drawn == 2)).any()
    # A view: strides of states and positions of their own.
    agree(
        tokens,
        torch.stack([logits, logits], 1)[:, 0],
        reveal_probability=0.5,
        shift=torch.stack([shift] * 2, 2)[:, :, 0],
    )


@pytest.mark.parametrize(("vocab", "offset"), [(32, 0.0), (32, -9.9e8), (40, 9e8), (600, -3_000.0)])
def test_offsets_and_wide_ranges_agree(vocab: int, offset: float) -> None:
    generator = torch.Generator().manual_seed(3)
    rows = (2, 4) if vocab > 512 else (20, 16)
    logits = torch.randn(*rows, vocab, generator=generator) * 10 ** torch.randint(
        -3, 8, (*rows, 1), generator=generator
    )
    logits = (logits + offset).clamp(max=1e9)
    logits[..., -1] = -1e9
    agree(torch.full(rows, vocab), logits, reveal_probability=1.0)


@pytest.mark.parametrize("order", ["random", "confidence"])
@pytest.mark.parametrize("vocab", [22, 520])
def test_counts_agree(order: str, vocab: int) -> None:
    tokens, logits = masked_states(7, 21 if vocab == 22 else 3, vocab, masked=0.6)
    logits = (logits * 2).round() / 2  # ties of confidence
    length = tokens.shape[1]
    common: dict[str, Any] = {"order": order, "ancestors": picked(7, 12)}
    groups = {"seed": torch.tensor([3, -5]), "lengths": torch.tensor([length, length // 2])}
    children = agree(tokens, logits, reveal_count=3, remask_probability=0.2, branch=2, **groups, **common)
    opened = (tokens[common["ancestors"]][:, None] == vocab) & (children != vocab)
    assert int(opened.sum(-1).amax()) == 3
    agree(tokens, logits, reveal_count=torch.tensor([0, 2, 50]), seed=torch.tensor([1, 2, 3]), **common)
    agree(tokens, logits, reveal_count=0, **common)


def test_a_row_of_many_positions_is_counted_in_one_program() -> None:
    tokens, logits = torch.full((2, 3000), 3), torch.zeros(2, 3000, 3)
    children = agree(tokens, logits, reveal_count=1234, branch=2)
    assert ((children != 3).sum(-1) == 1234).all()
    long = torch.full((1, 2**15 + 1), 1, device=DEVICE)
    with pytest.raises(ValueError, match=r'reveal_count: backend "triton" takes at most 32,768'):
        masked_step(long, torch.zeros(*long.shape, 1, device=DEVICE), reveal_count=1, backend="triton")


def test_remasking_agrees() -> None:
    tokens, logits = masked_states(9, 33, 22)
    frozen = torch.rand(9, 33, generator=torch.Generator().manual_seed(4)) < 0.5
    for probability in (0.3, 1.0):
        agree(tokens, logits, reveal_probability=0.3, remask_probability=probability, frozen=frozen, branch=2)
    agree(tokens, logits, reveal_probability=1.0, remask_probability=0.5, frozen=frozen[0], lengths=torch.tensor([20]))
    agree(tokens, logits, reveal_probability=0.0, remask_probability=0.2, seed=1, step=2**28 - 1)


@pytest.mark.parametrize("vocab", [22, 1030])
def test_truncation_agrees(vocab: int) -> None:
    tokens, logits = masked_states(1, 3, vocab) if vocab > 512 else masked_states(7, 21, vocab)
    logits = (logits * 2).round() / 2
    cuts: list[dict[str, Any]] = [
        {"top_k": 3},
        {"top_p": 0.5},
        {"top_k": 40, "top_p": 0.9},
        {"top_p": 1e-9},
        {"top_k": 9999},
    ]
    for cut in cuts[2:3] if vocab > 512 else cuts:
        agree(tokens, logits, reveal_probability=1.0, seed=9, shift=torch.sin(logits).clamp(min=-1), **cut)
    agree(tokens, logits, reveal_count=1, order="confidence", top_k=2)


def test_slots_repeat_their_part_of_the_whole() -> None:
    tokens, logits = masked_states(8, 12, 22)
    whole = agree(tokens, logits, reveal_probability=0.6, branch=3, seed=4)
    part = torch.tensor([6, 1, 3])
    some = agree(tokens[part], logits[part], reveal_probability=0.6, branch=3, seed=4, slots=part.int())
    assert torch.equal(some, whole[part])


@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_any_small_row_agrees(data: st.DataObject) -> None:
    vocab = data.draw(st.sampled_from([1, 2, 5, 16, 31, 33]))
    value = st.floats(-1.5e9, 1e9, width=32)
    row = data.draw(st.lists(st.one_of(st.just(-math.inf), value), min_size=vocab, max_size=vocab))
    row[data.draw(st.integers(0, vocab - 1))] = data.draw(st.floats(-100, 100, width=16))
    cut = data.draw(st.sampled_from([{}, {"top_k": 2}, {"top_p": 0.7}]))
    logits = torch.tensor(row).expand(2, 9, vocab)
    agree(
        torch.full((2, 9), vocab),
        logits,
        reveal_probability=1.0,
        branch=3,
        seed=data.draw(st.integers(0, 2**64 - 1)),
        **cut,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rule", ["argmax", "draw"])
def test_modes_agree(rule: str, dtype: torch.dtype) -> None:
    for vocab, size in ((22, (9, 30)), (700, (1, 4))):
        tokens, logits = masked_states(*size, vocab, dtype=dtype)
        filled = assert_agrees(masked_mode, rule, tokens=tokens, logits=logits, rule=rule, temperature=0.6, step=2)[0]
        assert not (filled == vocab).any()


def refusals(logits: Tensor) -> list[tuple[str, dict[str, Any]]]:
    """Return calls that are refused, and what is wrong with each; the second child of a state meets bad rows first."""
    vocab = logits.shape[-1]
    tokens = torch.full(logits.shape[:2], vocab)
    tokens[1] = 0
    strange, nan, forbidden, both = tokens.clone(), logits.clone(), logits.clone(), logits.clone()
    strange[2, 1], strange[0, 2] = vocab + 1, -1
    nan[2, 1, 0], nan[1] = math.nan, math.nan
    forbidden[3] = -math.inf
    both[0, 2], both[2, 1, 0] = -math.inf, 2e9
    step: dict[str, Any] = {"reveal_probability": 1.0, "branch": 2}
    ranked: dict[str, Any] = {"reveal_count": 1, "order": "confidence", "branch": 2}
    return [
        ("ancestor", {"tokens": tokens, "logits": logits, **step, "ancestors": torch.tensor([0, 9, -1])}),
        ("slot", {"tokens": tokens, "logits": nan, **step, "slots": torch.tensor([0, 1, 2**32, 2])}),
        ("token", {"tokens": strange, "logits": nan, **step}),
        ("token by an ancestor", {"tokens": strange, "logits": logits, **step, "ancestors": torch.tensor([2, 2, 1])}),
        ("NaN", {"tokens": tokens, "logits": nan, **step}),
        ("forbidden", {"tokens": tokens, "logits": forbidden, **step}),
        ("the first of two", {"tokens": tokens, "logits": both, **step}),
        ("too large", {"tokens": tokens, "logits": both.flip(0), **step}),
        ("shift", {"tokens": tokens, "logits": logits, **step, "shift": logits.clone().fill_(math.inf)}),
        ("NaN ranked", {"tokens": tokens, "logits": nan, **ranked}),
        ("forbidden ranked", {"tokens": tokens, "logits": forbidden, **ranked}),
        ("negative count", {"tokens": tokens, "logits": logits, "reveal_count": torch.tensor([-1])}),
    ]


@pytest.mark.parametrize("vocab", [7, 513])
def test_errors_are_those_of_the_reference(vocab: int) -> None:
    calls = refusals(torch.zeros(4, 3, vocab))
    for what, arguments in calls if vocab == 7 else calls[4::2]:
        errors = []
        for backend in ("torch", "cpu", "triton"):
            on = {k: v.to(DEVICE) if isinstance(v, Tensor) and backend == "triton" else v for k, v in arguments.items()}
            with pytest.raises((ValueError, IndexError)) as raised:
                masked_step(**on, backend=backend)
            errors.append((raised.type, str(raised.value)))
        assert errors[0] == errors[1] == errors[2], what


def test_rows_that_are_not_needed_are_not_read() -> None:
    tokens, logits = masked_states(3, 8, 22)
    logits[tokens != 22] = math.nan
    logits[2] = math.nan
    agree(tokens, logits, reveal_probability=1.0, ancestors=torch.tensor([0, 1, 1]))
    agree(tokens, logits, reveal_count=2, order="confidence", ancestors=torch.tensor([0, 1, 1]))
    agree(tokens, logits, reveal_count=0, order="confidence")


def test_nothing_is_a_result_of_its_shape() -> None:
    for shape in ((0, 5), (3, 0)):
        children = agree(torch.zeros(shape, dtype=torch.int64), torch.zeros(*shape, 4), reveal_probability=0.5)
        assert children.shape == (shape[0], 1, shape[1])


def test_a_step_from_the_device_draws_the_same() -> None:
    tokens, logits = (x.to(DEVICE) for x in masked_states(4, 9, 22))
    step = torch.tensor([7], device=DEVICE)
    for backend in ("torch", "cpu", "triton") if DEVICE.type == "cpu" else ("triton",):
        common: dict[str, Any] = {"reveal_probability": 0.5, "seed": 3, "backend": backend}
        assert torch.equal(
            masked_step(tokens, logits, step=step, **common), masked_step(tokens, logits, step=7, **common)
        )
    with pytest.raises(TypeError, match=r"step: expected a whole number or an int64 tensor of one, got torch\.int32"):
        masked_step(tokens, logits, reveal_probability=0.5, step=step.int())
