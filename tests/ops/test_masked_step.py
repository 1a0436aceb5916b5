from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastguide.ops.masked_step import masked_step
from fastguide.reference.exp import block_exponent, scaled_weight
from fastguide.reference.masked_step import draw_tokens, reveal_threshold
from tests.specs import builds, masked_states

# states, length, vocabulary, particles, branch, reveal probability
SHAPES = [
    (5, 7, 4, 5, 1, 0.5),
    (6, 1, 1, 9, 2, 0.9),
    (33, 70, 22, 300, 3, 0.3),
    (17, 130, 32, 90, 1, 1.0),
    (12, 65, 33, 40, 2, 0.6),
    (4, 20, 512, 30, 2, 0.5),
    (4, 20, 513, 30, 2, 0.5),
    (3, 6, 9_001, 9, 4, 0.7),
    (2, 3, 50_258, 5, 2, 1.0),
]


def agree(tokens: Tensor, logits: Tensor, **settings: object) -> Tensor:
    """Assert that every build of the kernel gives the bits of the reference, and return them."""
    expected = masked_step(tokens, logits, backend="torch", **settings)  # type: ignore[arg-type]
    for variant in builds():
        got = masked_step(tokens, logits, backend="cpu", **settings)  # type: ignore[arg-type]
        assert torch.equal(got, expected), variant
    return expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernel_agrees_with_reference(shape: tuple[int, int, int, int, int, float], dtype: torch.dtype) -> None:
    states, length, vocab, particles, branch, probability = shape
    tokens, logits = masked_states(states, length, vocab, dtype=dtype)
    ancestors = torch.randint(0, states, (particles,), generator=torch.Generator().manual_seed(1))
    children = agree(tokens, logits, reveal_probability=probability, ancestors=ancestors, branch=branch, seed=5, step=3)
    assert children.shape == (particles, branch, length)
    assert children.dtype == tokens.dtype
    open_before = tokens[ancestors][:, None].expand_as(children) == vocab
    assert torch.equal(children[~open_before], tokens[ancestors][:, None].expand_as(children)[~open_before])


@pytest.mark.parametrize("vocab", [22, 700])
@pytest.mark.parametrize("bias_shape", ["V", "LV"])
def test_temperature_and_bias_agree_with_reference(vocab: int, bias_shape: str) -> None:
    tokens, logits = masked_states(30, 40, vocab)
    generator = torch.Generator().manual_seed(2)
    bias = torch.randn((vocab,) if bias_shape == "V" else (40, vocab), generator=generator)
    bias[..., 1] = -torch.inf
    for temperature in (0.0, 0.1, 0.7, 3.0):
        children = agree(tokens, logits, reveal_probability=1.0, temperature=temperature, bias=bias, seed=2**63 + 11)
        assert not (children[tokens[:, None] == vocab] == 1).any()


@pytest.mark.parametrize("vocab", [3, 32, 40, 600])
@pytest.mark.parametrize("offset", [0.0, -3_000.0, 1e6, -9.9e8, 9e8])
def test_offsets_and_wide_ranges_agree_with_reference(vocab: int, offset: float) -> None:
    tokens = torch.full((20, 16), vocab)
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(20, 16, vocab, generator=generator) * 10 ** torch.randint(
        -3, 8, (20, 16, 1), generator=generator
    )
    logits = (logits + offset).clamp(max=1e9)
    logits[..., -1] = -1e9
    agree(tokens, logits, reveal_probability=1.0)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_small_row_agrees_with_reference(data: st.DataObject) -> None:
    vocab = data.draw(st.sampled_from([1, 2, 5, 16, 17, 31, 33, 520]))
    width = data.draw(st.sampled_from([16, 32]))
    value = st.floats(-1.5e9, 1e9, width=width) if width == 32 else st.floats(-6e4, 6e4, width=16)
    row = data.draw(st.lists(st.one_of(st.just(-math.inf), value), min_size=vocab, max_size=vocab))
    row[data.draw(st.integers(0, vocab - 1))] = data.draw(st.floats(-100, 100, width=16))
    logits = torch.tensor(row).to(torch.float16 if width == 16 else torch.float32).expand(2, 9, vocab)
    tokens = torch.full((2, 9), vocab)
    settings_ = {"reveal_probability": 1.0, "branch": 3, "seed": data.draw(st.integers(0, 2**64 - 1))}
    agree(tokens, logits, **settings_)


def test_frequencies_are_those_of_the_softmax() -> None:
    # Chi-square on 6 degrees of freedom: above 35 with probability 4e-6 if the law is right.
    logits = torch.tensor([0.0, 1.0, -1.0, 2.0, -math.inf, 0.3, -3.0, 0.9])
    draws = 1 << 20
    children = masked_step(
        torch.full((1, 64), 8),
        logits.expand(1, 64, 8),
        reveal_probability=1.0,
        ancestors=torch.zeros(draws // 64, dtype=torch.int64),
        seed=11,
    )
    counts = children.flatten().bincount(minlength=8).double()
    expected = logits.double().softmax(0) * draws
    assert counts[4] == 0
    alive = expected > 0
    assert float(((counts - expected)[alive] ** 2 / expected[alive]).sum()) < 35


def test_a_probability_of_one_in_a_million_is_drawn_as_often() -> None:
    # Poisson of mean 8.4: outside 1..25 with probability 2e-4.
    logits = torch.tensor([0.0, math.log(1e-6)]).expand(1, 64, 2)
    children = masked_step(
        torch.full((1, 64), 2, dtype=torch.int32),
        logits,
        reveal_probability=1.0,
        ancestors=torch.zeros(1 << 17, dtype=torch.int32),
        seed=1,
    )
    assert 1 <= int((children == 1).sum()) <= 25


def test_shares_are_exact_far_into_the_tail() -> None:
    y = torch.tensor([[0.0, math.log(1e-9), math.log(1e-12)]])
    weights = scaled_weight(y, block_exponent(y.amax(-1, keepdim=True)))[0].double()
    shares = weights / weights.sum()
    assert float(shares[1]) == pytest.approx(1e-9, rel=3e-6)  # fl32(log p) itself is off by up to 1e-6
    assert float(shares[2]) == pytest.approx(1e-12, rel=1e-3)
    # The words on either side of the boundary between the first and the second token.
    boundary = math.ceil(int(weights[0]) * 2**64 / int(weights.sum()))
    words = torch.tensor([boundary - 1 - 2**64, boundary - 2**64 + 2**20, -1])
    first_two = draw_tokens(y.expand(3, -1), words)
    assert first_two.tolist()[::2] == [0, 2]
    assert first_two[1] == 1


def test_forbidden_tokens_are_never_drawn() -> None:
    for vocab in (22, 600):
        logits = torch.full((1, 64, vocab), -math.inf)
        allowed = torch.arange(64) % (vocab - 2) + 1
        logits[0, torch.arange(64), allowed] = -torch.arange(64.0) * 1e4
        for _ in builds():
            children = masked_step(
                torch.full((1, 64), vocab),
                logits,
                reveal_probability=1.0,
                ancestors=torch.zeros(500, dtype=torch.int64),
            )
            assert torch.equal(children[:, 0], allowed.expand(500, 64))


@pytest.mark.parametrize("vocab", [9_001, 200_003])
def test_many_blocks_of_equal_weight_are_drawn_evenly(vocab: int) -> None:
    # The headroom that keeps the total in 63 bits must not bend the law: mean of uniform tokens within 5 standard
    # errors (false alarm 6e-7).
    draws = 4_096
    children = masked_step(
        torch.full((1, 8), vocab),
        torch.zeros(1, 8, vocab),
        reveal_probability=1.0,
        ancestors=torch.zeros(draws // 8, dtype=torch.int64),
    )
    mean = float(children.double().mean()) / vocab
    assert abs(mean - 0.5) < 5 / math.sqrt(12 * draws)
    assert int(children.max()) < vocab


def test_reveals_have_the_stated_probability_and_are_certain_at_one() -> None:
    # Binomial counts within 5 standard errors: false alarm 6e-7 each.
    tokens, logits = torch.full((1, 256), 4), torch.zeros(1, 256, 4)
    ancestors = torch.zeros(2_000, dtype=torch.int64)
    for probability in (0.0, 0.02, 0.5, 0.97, 1.0):
        children = masked_step(tokens, logits, reveal_probability=probability, ancestors=ancestors, seed=3)
        share = float((children != 4).double().mean())
        error = math.sqrt(probability * (1 - probability) / children.numel())
        assert abs(share - probability) <= 5 * error
    assert (reveal_threshold(0.0), reveal_threshold(1e-12), reveal_threshold(1.0)) == (0, 1, 2**32)


@pytest.mark.parametrize("vocab", [22, 600])
def test_rows_that_are_not_revealed_are_not_read(vocab: int) -> None:
    tokens, logits = masked_states(10, 30, vocab)
    settings_ = {"reveal_probability": 0.2, "seed": 4}
    children = masked_step(tokens, logits, **settings_)[:, 0]
    poisoned = torch.where((children != tokens)[..., None], logits, torch.nan)
    assert torch.equal(agree(tokens, poisoned, **settings_)[:, 0], children)


def test_children_are_particles_with_slots_of_their_own() -> None:
    tokens, logits = masked_states(8, 20, 22)
    family = masked_step(tokens, logits, reveal_probability=0.5, branch=4, seed=9, step=2)
    for m in range(4):
        slots = torch.arange(8) * 4 + m
        alone = masked_step(tokens, logits, reveal_probability=0.5, seed=9, step=2, slots=slots)
        assert torch.equal(alone[:, 0], family[:, m])


@pytest.mark.parametrize("vocab", [22, 600])
def test_a_subset_with_its_slots_repeats_its_part(vocab: int) -> None:
    tokens, logits = masked_states(9, 20, vocab)
    ancestors = torch.tensor([0, 0, 5, 8, 2, 2, 2, 7, 1, 3, 4, 6])
    seeds, lengths = torch.tensor([11, -12, 13]), torch.tensor([20, 13, 7])
    settings_ = {"reveal_probability": 0.6, "branch": 2, "step": 5}
    whole = masked_step(tokens, logits, ancestors=ancestors, seed=seeds, lengths=lengths, **settings_)
    some = torch.tensor([10, 1, 6, 7])
    part = agree(
        tokens,
        logits,
        ancestors=ancestors[some],
        seed=seeds[some // 4],
        slots=some % 4,
        lengths=lengths[some // 4],
        **settings_,
    )
    assert torch.equal(part, whole[some])


def test_a_group_alone_is_the_group_in_a_batch() -> None:
    tokens, logits = masked_states(12, 20, 22)
    seeds = torch.tensor([3, 1, 2])
    batch = masked_step(tokens, logits, reveal_probability=0.5, seed=seeds)
    for g in range(3):
        own = slice(4 * g, 4 * g + 4)
        alone = masked_step(tokens[own], logits[own], reveal_probability=0.5, seed=seeds[g : g + 1])
        assert torch.equal(alone, batch[own])


def test_padding_is_copied_and_never_drawn_or_checked() -> None:
    tokens, logits = masked_states(6, 70, 22, masked=1.0)
    lengths = torch.tensor([70, 3, 65], dtype=torch.int32)
    used = torch.arange(70) < lengths.repeat_interleave(2)[:, None]
    padded, poisoned = torch.where(used, tokens, -5), torch.where(used[..., None], logits, torch.nan)
    padded[0, 0] = 21
    children = agree(padded, poisoned, reveal_probability=1.0, seed=torch.tensor([1, 2, 3]), lengths=lengths)[:, 0]
    assert torch.equal(children[~used], padded[~used])
    assert (children[used] < 22).all()
    masks_beyond = torch.where(used, tokens, 22)
    children = masked_step(
        masks_beyond, poisoned, reveal_probability=1.0, seed=torch.tensor([1, 2, 3]), lengths=lengths
    )[:, 0]
    assert (children[~used] == 22).all()


def test_int32_tokens_and_strided_logits_give_the_same_tokens() -> None:
    tokens, logits = masked_states(6, 70, 22)
    expected = masked_step(tokens, logits, reveal_probability=0.5)
    narrow = masked_step(tokens.int(), logits, reveal_probability=0.5)
    assert narrow.dtype == torch.int32
    assert torch.equal(narrow, expected)
    with_mask_column = torch.cat([logits, torch.full((6, 70, 1), torch.nan)], -1)
    assert torch.equal(masked_step(tokens, with_mask_column[..., :22], reveal_probability=0.5), expected)
    transposed = logits.transpose(0, 2).contiguous().transpose(0, 2)
    assert torch.equal(masked_step(tokens, transposed, reveal_probability=0.5), expected)
    by_position = logits.transpose(0, 1).contiguous().transpose(0, 1)
    assert torch.equal(masked_step(tokens, by_position, reveal_probability=0.5), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_converted_exactly(dtype: torch.dtype) -> None:
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    ordinary = bits[bits.float() <= 1e7]
    logits = ordinary[: len(ordinary) // 64 * 64].view(1, -1, 64).clone()
    logits[..., 0] = 0
    tokens = torch.full(logits.shape[:2], 64)
    children = agree(tokens, logits, reveal_probability=1.0, temperature=0.01)
    assert torch.equal(children, masked_step(tokens, logits.float(), reveal_probability=1.0, temperature=0.01))


@pytest.mark.parametrize("vocab", [20, 100, 2_000])
def test_zero_temperature_takes_the_lowest_index_of_the_largest(vocab: int) -> None:
    tokens, logits = masked_states(9, 20, vocab, masked=1.0)
    logits = logits.round()
    logits[0, 0] = -0.0
    logits[0, 0, vocab // 2 :] = 0.0
    children = agree(tokens, logits, reveal_probability=1.0, temperature=0.0)[:, 0]
    lowest = torch.where(logits == logits.amax(-1, keepdim=True), torch.arange(vocab), vocab).amin(-1)
    assert torch.equal(children, lowest)


@pytest.mark.parametrize("vocab", [22, 100, 1_000])
@pytest.mark.parametrize("bad", [math.nan, math.inf, 2e9])
def test_a_bad_logit_is_named(vocab: int, bad: float) -> None:
    tokens, logits = masked_states(5, 9, vocab, masked=1.0)
    logits[3, 7, vocab - 2] = bad
    logits[2, 8, 1] = bad
    ancestors = torch.tensor([1, 3, 0, 2])
    for backend in ("torch", "cpu"):
        for _ in builds():
            with pytest.raises(ValueError, match=rf"logits\[3, 7, {vocab - 2}\] is .*child \[1, 0\] at position 7"):
                masked_step(tokens, logits, reveal_probability=1.0, ancestors=ancestors, branch=2, backend=backend)


@pytest.mark.parametrize("vocab", [22, 100, 1_000])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_forbids_everything_is_named(vocab: int, temperature: float) -> None:
    tokens, logits = masked_states(5, 9, vocab, masked=1.0)
    bias = torch.zeros(9, vocab)
    bias[4] = -torch.inf
    logits[1, 3] = -2e9
    for backend in ("torch", "cpu"):
        for _ in builds():
            with pytest.raises(ValueError, match=r"logits \+ bias\[0, 4\] forbids every token"):
                masked_step(tokens, logits, reveal_probability=1.0, bias=bias, temperature=temperature, backend=backend)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_wrong_arguments_are_refused(backend: str) -> None:
    tokens, logits = masked_states(4, 6, 5)

    def step(tokens: Tensor = tokens, logits: Tensor = logits, **settings_: object) -> None:
        masked_step(tokens, logits, **({"reveal_probability": 0.5, "backend": backend} | settings_))  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=r"reveal_probability: .*\[0, 1\], got 1.5"):
        step(reveal_probability=1.5)
    with pytest.raises(ValueError, match="reveal_probability"):
        step(reveal_probability=math.nan)
    with pytest.raises(ValueError, match=r"temperature: .*got -1"):
        step(temperature=-1)
    with pytest.raises(ValueError, match=r"temperature: .*got nan"):
        step(temperature=math.nan)
    with pytest.raises(ValueError, match="branch"):
        step(branch=0)
    with pytest.raises(ValueError, match="step"):
        step(step=2**28)
    with pytest.raises(TypeError, match=r"tokens: .*float32"):
        step(tokens=tokens.float())
    with pytest.raises(TypeError, match=r"logits: .*float64"):
        step(logits=logits.double())
    with pytest.raises(ValueError, match=r"logits: expected shape \[U, L, V\] = \[4, 6, V >= 1\], got \[4, 5, 5\]"):
        step(logits=logits[:, :5])
    with pytest.raises(ValueError, match=r"tokens: expected shape \[U, L\]"):
        step(tokens=tokens[0])
    with pytest.raises(ValueError, match=r"bias: .*got \[6\]"):
        step(bias=torch.zeros(6))
    with pytest.raises(IndexError, match=r"ancestors\[2\] is 4, outside the 4 rows of tokens"):
        step(ancestors=torch.tensor([0, 3, 4, -1]))
    with pytest.raises(TypeError, match="ancestors"):
        step(ancestors=torch.zeros(4))
    with pytest.raises(IndexError, match=r"slots\[1\] is 4294967295.*branch = 2"):
        step(slots=torch.tensor([0, 2**32 - 1, 1, 2]), branch=2)
    with pytest.raises(ValueError, match=r"slots: expected shape \[4\], got \[3\]"):
        step(slots=torch.arange(3))
    with pytest.raises(ValueError, match=r"seed: .*4 particles"):
        step(seed=torch.arange(3))
    with pytest.raises(ValueError, match=r"lengths: expected shape \[1\], got \[2\]"):
        step(lengths=torch.tensor([3, 4]))
    strange = tokens.clone()
    strange[2, 1], strange[3, 0] = 6, -1
    with pytest.raises(ValueError, match=r"tokens\[2, 1\] is 6; expected 0 to 4, or 5 for the mask"):
        step(tokens=strange)


def test_empty_inputs_give_empty_outputs() -> None:
    for backend in ("torch", "cpu"):
        settings_ = {"reveal_probability": 0.5, "backend": backend}
        empty = masked_step(torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, 3, 4), **settings_)
        assert empty.shape == (0, 1, 3)
        tokens, logits = masked_states(4, 6, 5)
        nobody = masked_step(tokens, logits, ancestors=torch.zeros(0, dtype=torch.int64), branch=2, **settings_)
        assert nobody.shape == (0, 2, 6)
        assert masked_step(tokens[:, :0], logits[:, :0], **settings_).shape == (4, 1, 0)


def test_nothing_else_is_touched() -> None:
    tokens, logits = masked_states(40, 60, 22)
    copies, random, threads = (tokens.clone(), logits.clone()), torch.get_rng_state(), torch.get_num_threads()
    masked_step(tokens, logits, reveal_probability=0.5)
    assert torch.equal(tokens, copies[0])
    assert torch.equal(logits, copies[1])
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == threads


def test_compiles_into_one_graph() -> None:
    tokens, logits = masked_states(4, 6, 5)

    def step(tokens: Tensor, logits: Tensor) -> Tensor:
        return masked_step(tokens, logits * 2, reveal_probability=0.5, seed=3).flatten(0, 1)

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(tokens, logits), step(tokens, logits))
