"""Which positions `masked_step` changes: counts, order, remasking, frozen tokens, padding."""

from __future__ import annotations

import math
from itertools import combinations

import pytest
import torch
from torch import Tensor

from fastguide import _cpu
from fastguide.ops.masked_step import masked_step
from fastguide.reference.categorical import scale_logits, threshold
from tests.specs import build, builds, masked_states


def agree(tokens: Tensor, logits: Tensor, **settings: object) -> Tensor:
    """Assert that every build of the kernel gives the bits of the reference, and return them."""
    expected = masked_step(tokens, logits, backend="torch", **settings)  # type: ignore[arg-type]
    for variant in builds():
        got = masked_step(tokens, logits, backend="cpu", **settings)  # type: ignore[arg-type]
        assert torch.equal(got, expected), variant
    return expected


def chi_square(counts: Tensor, expected: Tensor | float) -> float:
    return float(((counts.double() - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("order", ["random", "confidence"])
@pytest.mark.parametrize(("length", "vocab"), [(1, 5), (7, 22), (64, 22), (65, 40), (130, 4), (200, 600)])
def test_kernel_agrees_with_reference(length: int, vocab: int, order: str) -> None:
    tokens, logits = masked_states(6, length, vocab)
    generator = torch.Generator().manual_seed(length)
    common = {
        "order": order,
        "ancestors": torch.tensor([5, 0, 0, 2, 2, 1, 4, 5]),
        "branch": 2,
        "seed": torch.tensor([3, 4]),
        "lengths": torch.tensor([length, max(1, length - 5)]),
        "remask_probability": 0.4,
        "frozen": torch.rand(6, length, generator=generator) < 0.5,
    }
    for count in (0, 1, length // 3, length):
        agree(tokens, logits, reveal_count=count, **common)
    agree(tokens, logits, reveal_count=torch.tensor([2, 5], dtype=torch.int32), **common)


@pytest.mark.parametrize("order", ["random", "confidence"])
def test_exactly_as_many_as_asked_are_revealed(order: str) -> None:
    tokens, logits = masked_states(40, 70, 22)
    lengths = torch.tensor([70, 40])
    used = torch.arange(70) < lengths.repeat_interleave(20)[:, None]
    masks = ((tokens == 22) & used).sum(1)
    for count in (0, 1, 17, 34, 70):
        children = masked_step(
            tokens, logits, reveal_count=count, order=order, branch=3, seed=torch.tensor([1, 2]), lengths=lengths
        )
        revealed = (children != tokens[:, None]).sum(-1)
        assert torch.equal(revealed, masks.clamp(max=count)[:, None].expand(-1, 3))
    counts = torch.tensor([3, 11])
    children = masked_step(tokens, logits, reveal_count=counts, order=order, seed=torch.tensor([1, 2]), lengths=lengths)
    assert torch.equal((children[:, 0] != tokens).sum(1), torch.minimum(counts.repeat_interleave(20), masks))


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_random_subsets_are_uniform(threads: int) -> None:
    # 35 subsets of 3 of 7 masks among 9 positions: chi-square on 34 degrees of freedom above 92 with probability 3e-7.
    tokens = torch.full((1, 9), 3)
    tokens[0, [2, 6]] = 0
    draws = 70_000
    with build(_cpu.levels()[-1], threads):
        children = masked_step(
            tokens,
            torch.zeros(1, 9, 3),
            reveal_count=3,
            ancestors=torch.zeros(draws, dtype=torch.int64),
            seed=8,
        )[:, 0]
    taken = ((children != tokens) * 2 ** torch.arange(9)).sum(1)
    subsets = [sum(2**at for at in some) for some in combinations([0, 1, 3, 4, 5, 7, 8], 3)]
    counts = taken.bincount(minlength=512)[subsets]
    assert int(counts.sum()) == draws
    assert chi_square(counts, draws / 35) < 92


def test_random_order_is_that_of_the_words() -> None:
    # The k + 1 revealed contain the k revealed: each count cuts one order off at another place.
    tokens, logits = masked_states(30, 130, 4)
    before = torch.zeros(30, 130, dtype=torch.bool)
    for count in range(0, 70, 7):
        now = masked_step(tokens, logits, reveal_count=count, seed=5)[:, 0] != tokens
        assert (now | ~before).all()
        before = now


@pytest.mark.parametrize("vocab", [6, 22, 100, 700])
@pytest.mark.parametrize(
    "truncation", [{}, {"top_k": 3}, {"top_p": 0.6}, {"temperature": 0.0}, {"temperature": 3.0}], ids=str
)
def test_confidence_takes_the_surest_positions(vocab: int, truncation: dict[str, float]) -> None:
    tokens, logits = masked_states(12, 70, vocab)
    children = agree(tokens, logits, reveal_count=9, order="confidence", branch=2, **truncation)
    revealed = children != tokens[:, None]
    assert torch.equal(revealed[:, 0], revealed[:, 1])
    y = scale_logits(logits, None, 1 / (truncation.get("temperature") or 1.0)).flatten(0, 1)
    y = torch.where(y >= threshold(y, truncation.get("top_k"), truncation.get("top_p")), y, -torch.inf)
    surest = torch.where(tokens == vocab, y.double().softmax(-1).amax(-1).view_as(tokens), -1.0)
    lowest_taken = torch.where(revealed[:, 0], surest, torch.inf).amin(1)
    highest_left = torch.where(revealed[:, 0], -1.0, surest).amax(1)
    assert (lowest_taken >= highest_left - 1e-6).all()


def test_confidence_takes_the_lowest_position_of_equals() -> None:
    tokens = torch.full((3, 40), 5)
    tokens[1, :7] = 0
    logits = torch.zeros(3, 40, 5)
    logits[2, 33, 1] = 1.0
    revealed = agree(tokens, logits, reveal_count=4, order="confidence")[:, 0] != tokens
    assert [row.nonzero().flatten().tolist() for row in revealed] == [[0, 1, 2, 3], [7, 8, 9, 10], [0, 1, 2, 33]]


def test_confidence_is_not_moved_by_a_shift() -> None:
    tokens, logits = masked_states(12, 70, 22)
    shift = 5 * torch.randn(12, 70, 22, generator=torch.Generator().manual_seed(3))
    plain = masked_step(tokens, logits, reveal_count=9, order="confidence") != tokens[:, None]
    assert torch.equal(agree(tokens, logits, reveal_count=9, order="confidence", shift=shift) != tokens[:, None], plain)


@pytest.mark.parametrize("vocab", [22, 600])
def test_confidence_reads_no_row_it_does_not_need(vocab: int) -> None:
    tokens, logits = masked_states(9, 30, vocab)
    ancestors = torch.tensor([0, 1, 4, 8])
    lengths = torch.tensor([30, 12])
    used = torch.zeros(9, 30, dtype=torch.bool)
    used[[0, 1]] = True
    used[[4, 8], :12] = True
    poisoned = torch.where(((tokens == vocab) & used)[..., None], logits, torch.nan)
    common = {"order": "confidence", "ancestors": ancestors, "seed": torch.tensor([1, 2]), "lengths": lengths}
    agree(tokens, poisoned, reveal_count=2, **common)
    agree(tokens, torch.full_like(logits, torch.nan), reveal_count=0, **common)


@pytest.mark.parametrize("vocab", [22, 100, 600])
def test_a_row_that_cannot_be_ranked_is_named(vocab: int) -> None:
    tokens, logits = masked_states(5, 9, vocab, masked=1.0)
    logits[3, 7] = -torch.inf
    logits[2, 8, 1] = torch.nan
    for backend in ("torch", "cpu"):
        for _ in builds():
            with pytest.raises(ValueError, match=r"logits\[3, 7\] forbids .*child \[1, 0\] at position 7"):
                masked_step(
                    tokens,
                    logits,
                    reveal_count=2,
                    order="confidence",
                    ancestors=torch.tensor([1, 3, 2]),
                    branch=2,
                    backend=backend,
                )


def test_tokens_return_to_the_mask_as_often_as_they_should() -> None:
    # Binomial counts within 5 standard errors: false alarm 6e-7 each.
    tokens = torch.arange(200).remainder(5)[None]
    masks = tokens == 4
    for probability in (0.0, 0.01, 0.5, 1.0):
        children = masked_step(
            tokens,
            torch.zeros(1, 200, 4),
            reveal_probability=0.25,
            remask_probability=probability,
            ancestors=torch.zeros(3_000, dtype=torch.int64),
            seed=6,
        )[:, 0]
        back = children[:, ~masks[0]] == 4
        error = math.sqrt(probability * (1 - probability) / back.numel())
        assert abs(float(back.double().mean()) - probability) <= 5 * error
        forth = children[:, masks[0]] != 4
        assert abs(float(forth.double().mean()) - 0.25) <= 5 * math.sqrt(0.25 * 0.75 / forth.numel())
        assert torch.equal(children[:, ~masks[0]][~back], tokens.expand(3_000, -1)[:, ~masks[0]][~back])


def test_frozen_tokens_and_padding_are_never_remasked() -> None:
    tokens, logits = masked_states(6, 70, 22)
    frozen = torch.rand(6, 70, generator=torch.Generator().manual_seed(0)) < 0.5
    lengths = torch.tensor([70, 30])
    used = torch.arange(70) < lengths.repeat_interleave(3)[:, None]
    common = {"reveal_count": 0, "remask_probability": 1.0, "seed": torch.tensor([1, 2]), "lengths": lengths}
    children = agree(tokens, logits, frozen=frozen, **common)[:, 0]
    assert torch.equal(children, torch.where(used & ~frozen, 22, tokens))
    children = agree(tokens, logits, frozen=frozen[0], **common)[:, 0]
    assert torch.equal(children, torch.where(used & ~frozen[0], 22, tokens))
    # A frozen mask is a mask like any other.
    assert (agree(tokens, logits, frozen=frozen, reveal_probability=1.0) < 22).all()


def test_remasking_leaves_what_is_revealed_alone() -> None:
    tokens, logits = masked_states(20, 70, 22)
    plain = masked_step(tokens, logits, reveal_probability=0.3, branch=2)
    noisy = masked_step(tokens, logits, reveal_probability=0.3, branch=2, remask_probability=0.5)
    was_mask = (tokens == 22)[:, None].expand_as(plain)
    assert torch.equal(plain[was_mask], noisy[was_mask])


def test_a_subset_with_its_slots_repeats_its_part() -> None:
    tokens, logits = masked_states(9, 20, 22)
    ancestors = torch.tensor([0, 0, 5, 8, 2, 2, 2, 7, 1, 3, 4, 6])
    seeds, lengths, counts = torch.tensor([11, -12, 13]), torch.tensor([20, 13, 7]), torch.tensor([1, 5, 3])
    for order in ("random", "confidence"):
        common = {"order": order, "remask_probability": 0.3, "branch": 2, "step": 5}
        whole = masked_step(
            tokens, logits, ancestors=ancestors, seed=seeds, lengths=lengths, reveal_count=counts, **common
        )
        some = torch.tensor([10, 1, 6, 7])
        part = agree(
            tokens,
            logits,
            ancestors=ancestors[some],
            seed=seeds[some // 4],
            slots=some % 4,
            lengths=lengths[some // 4],
            reveal_count=counts[some // 4],
            **common,
        )
        assert torch.equal(part, whole[some])


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_wrong_arguments_are_refused(backend: str) -> None:
    tokens, logits = masked_states(4, 6, 5)

    def step(**settings: object) -> None:
        masked_step(tokens, logits, **({"backend": backend} | settings))  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="reveal_probability, reveal_count: give exactly one"):
        step()
    with pytest.raises(ValueError, match="reveal_probability, reveal_count: give exactly one"):
        step(reveal_probability=0.5, reveal_count=2)
    with pytest.raises(ValueError, match="reveal_count: expected at least 0, got -1"):
        step(reveal_count=-1)
    with pytest.raises(TypeError, match=r"reveal_count: .*1\.5"):
        step(reveal_count=1.5)
    with pytest.raises(TypeError, match=r"reveal_count: .*True"):
        step(reveal_count=True)
    with pytest.raises(TypeError, match=r"reveal_count: .*float32"):
        step(reveal_count=torch.zeros(1))
    with pytest.raises(ValueError, match=r"reveal_count: expected shape \[2\], got \[1\]"):
        step(reveal_count=torch.tensor([1]), seed=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"reveal_count\[1\] is -3; expected at least 0"):
        step(reveal_count=torch.tensor([1, -3]), seed=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"order: unknown value 'left'.*random, confidence"):
        step(reveal_count=1, order="left")
    with pytest.raises(ValueError, match=r"order: .*reveal_count instead"):
        step(reveal_probability=0.5, order="confidence")
    with pytest.raises(ValueError, match=r"remask_probability: .*\[0, 1\], got -0.1"):
        step(reveal_count=1, remask_probability=-0.1)
    with pytest.raises(ValueError, match="remask_probability"):
        step(reveal_count=1, remask_probability=math.nan)
    with pytest.raises(TypeError, match=r"frozen: expected bool, got torch.int64"):
        step(reveal_count=1, frozen=tokens)
    with pytest.raises(ValueError, match=r"frozen: expected shape \[L\] = \[6\] or \[U, L\] = \[4, 6\], got \[4\]"):
        step(reveal_count=1, frozen=torch.zeros(4, dtype=torch.bool))
