"""Which tokens `masked_step` draws among, and how often: top-k, nucleus, shift, `out`, tails, vocabularies."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fastguide import _cpu
from fastguide.ops.masked_mode import masked_mode
from fastguide.ops.masked_step import masked_step
from fastguide.reference.categorical import draw_tokens, threshold
from fastguide.reference.exp import block_exponent, scaled_weight
from tests.ops.test_masked_positions import agree, chi_square
from tests.specs import build, builds, masked_states

VOCABS = [1, 2, 5, 22, 32, 33, 100, 512, 513, 1_500, 2_100]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("vocab", VOCABS)
def test_kernel_agrees_with_reference(vocab: int, dtype: torch.dtype) -> None:
    tokens, logits = masked_states(4, 9, vocab, dtype=dtype)
    shift = torch.randn(4, 9, vocab, generator=torch.Generator().manual_seed(3)) * 3
    bias = torch.randn(9, vocab, generator=torch.Generator().manual_seed(4))
    for top_k in (None, 1, 3, 1 + vocab // 3, vocab + 1):
        for top_p in (None, 0.3, 0.95):
            common = {"reveal_probability": 1.0, "branch": 3, "top_k": top_k, "top_p": top_p}
            agree(tokens, logits, **common)
            agree(tokens, logits, shift=shift, bias=bias, temperature=0.3, **common)


@pytest.mark.parametrize("vocab", [20_000, 50_258])
@pytest.mark.parametrize("spread", [0.0, 0.01, 1.0, 6.0])
def test_wide_rows_agree_with_reference(vocab: int, spread: float) -> None:
    # From a nucleus of half the vocabulary (bounds from a sample) to one of a few tokens (bounds from block maxima), and
    # rows of equal logits, sorted rows and two values, where a sample says nothing.
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 4, vocab, generator=generator) * spread
    logits[0, 1] = logits[0, 1].sort().values
    logits[0, 2] = (logits[0, 2] > spread).float()
    logits[0, 3, 1_000:1_400] = 12.0
    tokens = torch.full((1, 4), vocab)
    for truncation in ({"top_p": 0.9}, {"top_k": 50}, {"top_k": 5_000}, {"top_k": 9_000, "top_p": 0.5}):
        agree(tokens, logits, reveal_probability=1.0, branch=8, **truncation)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_small_row_agrees_with_reference(data: st.DataObject) -> None:
    vocab = data.draw(st.sampled_from([1, 2, 5, 16, 17, 31, 33, 520]))
    few = st.sampled_from([-math.inf, -0.0, 0.0, 1.0, -1e9, -1.5e9, 5e8, 3.0])
    value = st.one_of(few, st.floats(-1.5e9, 1e9, width=32))
    row = data.draw(st.lists(value, min_size=vocab, max_size=vocab))
    row[data.draw(st.integers(0, vocab - 1))] = data.draw(st.floats(-100, 100, width=16))
    shift = data.draw(
        st.lists(st.one_of(st.just(-math.inf), st.floats(-4, 4, width=16)), min_size=vocab, max_size=vocab)
    )
    logits = torch.tensor(row).expand(2, 9, vocab)
    truncation = {
        "top_k": data.draw(st.one_of(st.none(), st.integers(1, vocab))),
        "top_p": data.draw(st.one_of(st.none(), st.floats(1e-9, 1.0))),
        "shift": torch.tensor(shift).nan_to_num(neginf=0.0).expand(2, 9, vocab),
    }
    agree(
        torch.full((2, 9), vocab),
        logits,
        reveal_probability=1.0,
        branch=3,
        seed=data.draw(st.integers(0, 9)),
        **truncation,
    )


@pytest.mark.parametrize("vocab", [5, 40, 700])
def test_threshold_is_what_its_definition_says(vocab: int) -> None:
    # Against every token's count and mass of more probable tokens; one block of logits to a row of at most 512.
    y = torch.randn(50, vocab, generator=torch.Generator().manual_seed(1)).mul(3).round_(decimals=1)
    more = y[:, None, :] > y[:, :, None]
    for k in (1, 2, vocab // 2):
        assert torch.equal(y >= threshold(y, k, None), more.sum(-1) < k)
    p = y.double().softmax(-1)
    for share in (0.2, 0.7, 0.999):
        above = torch.where(more, p[:, None, :], 0).sum(-1)
        doubtful = (above - share).abs() < 1e-6
        assert ((y >= threshold(y, None, share)) == (above < share))[~doubtful].all()
    both = y >= threshold(y, 3, 0.6)
    first = torch.where(more.sum(-1) < 3, p, 0)
    first = first / first.sum(-1, keepdim=True)
    above = torch.where(more, first[:, None, :], 0).sum(-1)
    assert (both == ((first > 0) & (above < 0.6)))[(above - 0.6).abs() > 1e-6].all()


@pytest.mark.parametrize("vocab", [22, 100, 700])
def test_equals_at_the_threshold_are_kept(vocab: int) -> None:
    logits = torch.zeros(1, 64, vocab)
    logits[..., 3] = 1.0
    logits[..., 10:] = -1.0
    for truncation in ({"top_k": 2}, {"top_p": 1e-3}, {"top_k": 9, "top_p": 0.5}):
        children = agree(
            torch.full((1, 64), vocab),
            logits,
            reveal_probability=1.0,
            ancestors=torch.zeros(40, dtype=torch.int64),
            **truncation,
        )
        assert children.unique().tolist() == ([3] if truncation.get("top_p") == 1e-3 else list(range(10)))


def test_truncation_that_keeps_all_changes_nothing() -> None:
    for vocab in (22, 100, 700):
        tokens, logits = masked_states(9, 20, vocab)
        plain = masked_step(tokens, logits, reveal_probability=1.0)
        for truncation in ({"top_k": vocab}, {"top_k": 10**6}, {"top_p": 1.0}, {"top_p": 1 - 2**-53}):
            assert torch.equal(agree(tokens, logits, reveal_probability=1.0, **truncation), plain)
        first = masked_step(tokens, logits, reveal_probability=1.0, temperature=0.0)
        assert torch.equal(agree(tokens, logits, reveal_probability=1.0, temperature=0.0, top_k=1, top_p=0.1), first)


def test_a_shift_is_a_bias_on_the_scaled_logits() -> None:
    for vocab in (22, 100, 700):
        tokens, logits = masked_states(9, 20, vocab)
        shift = torch.randn(9, 20, vocab, generator=torch.Generator().manual_seed(2))
        assert torch.equal(
            agree(tokens, logits, reveal_probability=1.0, shift=shift),
            masked_step(tokens, logits + shift, reveal_probability=1.0),
        )
        strided = torch.cat([shift, shift], -1)[..., :vocab]
        transposed = shift.transpose(0, 2).contiguous().transpose(0, 2)
        for other in (strided, transposed):
            assert torch.equal(
                masked_step(tokens, logits, reveal_probability=1.0, shift=other),
                masked_step(tokens, logits, reveal_probability=1.0, shift=shift),
            )


@pytest.mark.parametrize("vocab", [22, 50_258])
@pytest.mark.parametrize("options", [{"temperature": 0.7}, {"top_k": 7}, {"top_p": 0.5}, {"shift": True}], ids=str)
def test_frequencies_are_those_of_the_law(vocab: int, options: dict[str, object]) -> None:
    # Chi-square over bins of 50 expected draws or more, with df degrees of freedom: beyond df + 6 sqrt(2 df) + 20 with
    # probability below 1e-6 if the law is right.
    generator = torch.Generator().manual_seed(5)
    y = torch.randn(vocab, generator=generator) * 2
    shift = torch.randn(vocab, generator=generator)
    draws = 1 << 18
    given_ = {**options, "shift": shift.expand(1, 64, vocab).contiguous()} if "shift" in options else options
    children = masked_step(
        torch.full((1, 64), vocab, dtype=torch.int32),
        y.expand(1, 64, vocab).contiguous(),
        reveal_probability=1.0,
        ancestors=torch.zeros(draws // 64, dtype=torch.int64),
        seed=12,
        **given_,  # type: ignore[arg-type]
    )
    scaled = y.double() / float(options.get("temperature", 1.0))  # type: ignore[arg-type]
    kept = y >= threshold(y[None], options.get("top_k"), options.get("top_p"))[0]  # type: ignore[arg-type]
    expected = torch.where(kept, scaled + ("shift" in options) * shift.double(), -torch.inf).softmax(0) * draws
    counts = children.flatten().bincount(minlength=vocab)
    assert int(counts[~kept].sum()) == 0
    rank = expected.argsort(descending=True)
    bins = (expected[rank].cumsum(0) / 50).long()
    bins = bins.unique(return_inverse=True)[1]
    observed = torch.zeros(int(bins.max()) + 1, dtype=torch.float64).index_add(0, bins, counts[rank].double())
    wanted = torch.zeros_like(observed).index_add(0, bins, expected[rank])
    some = wanted > 5
    df = int(some.sum()) - 1
    assert chi_square(observed[some], wanted[some]) < df + 6 * math.sqrt(2 * df) + 20


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("vocab", [22, 600])
def test_forbidden_tokens_are_never_drawn(vocab: int, dtype: torch.dtype) -> None:
    tokens, logits = masked_states(20, 64, vocab, dtype=dtype)
    for options in ({}, {"top_k": 5}, {"top_p": 0.99}, {"temperature": 10.0}):
        for _ in builds():
            children = masked_step(tokens, logits, reveal_probability=1.0, branch=20, **options)
            drawn = logits[:, None].expand(-1, 20, -1, -1).gather(-1, children[..., None]).squeeze(-1)
            assert (drawn > -torch.inf)[(tokens == vocab)[:, None].expand_as(drawn)].all()


def test_the_map_from_words_to_tokens_is_exact_at_a_token_of_one_in_a_billion() -> None:
    # A token has the words from ceil(c 2^64 / T) up to the next token's, c the weight before it and T the total.
    y = torch.tensor([[0.0, math.log(1e-9), 0.5, math.log(1e-9), 0.0]])
    weights = scaled_weight(y, block_exponent(y.amax(-1, keepdim=True)))[0].tolist()
    total, before = sum(weights), 0
    for token, weight in enumerate(weights):
        first = -(-(before * 2**64) // total)
        last = -(-((before + weight) * 2**64) // total) - 1
        words = torch.tensor([w - 2**64 if w >= 2**63 else w for w in (first, last)])
        assert draw_tokens(y.expand(2, -1), words).tolist() == [token, token]
        share = (last + 1 - first) / 2**64
        assert share == pytest.approx(float(y.double().softmax(-1)[0, token]), rel=3e-6)
        before += weight


def _rare(p: float, rounds: int, states: int, seed: int) -> int:
    logits = torch.zeros(1, 512, 2)
    logits[..., 1] = math.log(p)
    tokens = torch.full((1, 512), 2, dtype=torch.int32)
    ancestors = torch.zeros(states, dtype=torch.int32)
    out = torch.empty(states, 1, 512, dtype=torch.int32)
    found = 0
    for step in range(rounds):
        masked_step(tokens, logits, reveal_probability=1.0, ancestors=ancestors, seed=seed, step=step, out=out)
        found += int(out.sum())
    return found


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_probability_of_one_in_a_million_is_drawn_as_often(threads: int) -> None:
    # Poisson of mean 8.4: outside 1..25 with probability 2e-4.
    with build("portable", threads):
        slow = _rare(1e-6, 1, 1 << 10, 7)
    with build(_cpu.levels()[-1], threads):
        assert slow == _rare(1e-6, 1, 1 << 10, 7)
        assert 1 <= _rare(1e-6, 1, 1 << 14, 7) <= 25


@pytest.mark.slow
def test_a_probability_of_one_in_a_billion_is_drawn_as_often() -> None:
    # 4e9 draws, Poisson of mean 4.3: outside 1..15 with probability 1.4 %, nearly all of it at 0; a map that cannot reach
    # 1e-9 (a 24-bit uniform) gives 0 or 256.
    assert 1 <= _rare(1e-9, 256, 1 << 15, 3) <= 15


def test_out_is_written_and_returned() -> None:
    tokens, logits = masked_states(6, 70, 22)
    expected = masked_step(tokens, logits, reveal_probability=0.5, branch=2)
    filled = masked_mode(tokens, logits)
    for backend in ("torch", "cpu"):
        out = torch.full((6, 2, 70), -1)
        assert masked_step(tokens, logits, reveal_probability=0.5, branch=2, out=out, backend=backend) is out
        assert torch.equal(out, expected)
        assert masked_mode(tokens, logits, out=out[:, 0].clone(), backend=backend).equal(filled)


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_wrong_arguments_are_refused(backend: str) -> None:
    tokens, logits = masked_states(4, 6, 5)

    def step(**options: object) -> None:
        masked_step(tokens, logits, **({"reveal_probability": 0.5, "backend": backend} | options))  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=r"top_k: .*got 0"):
        step(top_k=0)
    with pytest.raises(TypeError, match=r"top_k: .*1.5"):
        step(top_k=1.5)
    for share in (0.0, 1.5, math.nan):
        with pytest.raises(ValueError, match=rf"top_p: .*\(0, 1\], got {share}"):
            step(top_p=share)
    with pytest.raises(TypeError, match=r"shift: expected float32, got torch.float64"):
        step(shift=logits.double())
    with pytest.raises(ValueError, match=r"shift: expected the shape of logits, \[4, 6, 5\], got \[4, 6, 4\]"):
        step(shift=torch.zeros(4, 6, 4))
    with pytest.raises(ValueError, match=r"shift: .*temperature 0"):
        step(shift=torch.zeros(4, 6, 5), temperature=0.0)
    with pytest.raises(TypeError, match=r"out: expected torch.int64, as tokens are, got torch.int32"):
        step(out=torch.zeros(4, 1, 6, dtype=torch.int32))
    with pytest.raises(ValueError, match=r"out: expected a contiguous tensor of shape \[4, 1, 6\], got shape \[4, 6\]"):
        step(out=torch.zeros(4, 6, dtype=torch.int64))
    with pytest.raises(ValueError, match="out: shares memory with tokens"):
        step(out=tokens[:, None])
    with pytest.raises(ValueError, match="top_p"):
        masked_mode(tokens, logits, rule="draw", top_p=2.0, backend=backend)


@pytest.mark.parametrize("vocab", [5, 100, 700])
def test_a_bad_shift_is_named(vocab: int) -> None:
    tokens, logits = masked_states(4, 6, vocab, masked=1.0)
    logits[...] = 0.0
    for bad in (math.nan, math.inf, 2e9):
        shift = torch.zeros(4, 6, vocab)
        shift[2, 3, 4] = bad
        for backend in ("torch", "cpu"):
            for _ in builds():
                with pytest.raises(ValueError, match=r"shift\[2, 3, 4\] is .*child \[2, 0\] at position 3"):
                    masked_step(tokens, logits, reveal_probability=1.0, shift=shift, backend=backend)
    shift = torch.zeros(4, 6, vocab)
    shift[1, 5] = -torch.inf
    for backend in ("torch", "cpu"):
        with pytest.raises(ValueError, match=r"logits \+ shift\[1, 5\] forbids every token"):
            masked_step(tokens, logits, reveal_probability=1.0, shift=shift, backend=backend)
