from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastguide.ops.gaussian_step import gaussian_step
from fastguide.ops.log_ratio import gaussian_log_ratio, masked_log_ratio
from fastguide.ops.masked_step import masked_step
from tests.specs import builds, masked_states

NUMBERS: dict[str, Any] = {"x_coefficient": 0.9, "prediction_coefficient": -0.3, "sigma": 0.5, "shift_coefficient": 0.7}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def agree_gaussian(*tensors: Tensor, **settings: Any) -> Tensor:
    """Assert that every build of the kernel gives the bits of the reference, and return them."""
    expected = gaussian_log_ratio(*tensors, backend="torch", **settings)
    for variant in builds():
        assert torch.equal(gaussian_log_ratio(*tensors, backend="cpu", **settings), expected), variant
    return expected


def agree_masked(*tensors: Tensor, **settings: Any) -> Tensor:
    expected = masked_log_ratio(*tensors, backend="torch", **settings)
    for variant in builds():
        assert torch.equal(masked_log_ratio(*tensors, backend="cpu", **settings), expected), variant
    return expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("trailing", [(), (1,), (31,), (32,), (3, 11, 2), (1_000,)], ids=str)
def test_gaussian_kernel_agrees_with_reference(trailing: tuple[int, ...], dtype: torch.dtype) -> None:
    x, prediction, shift = normal(7, *trailing), normal(7, *trailing, seed=1).to(dtype), normal(7, *trailing, seed=2)
    ancestors = torch.randint(0, 7, (20,))
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        children = normal(20, 3, *trailing, seed=3)
        ratios = agree_gaussian(children, x, prediction, shift=shift.to(kind), ancestors=ancestors, **NUMBERS)
        assert ratios.shape == (20, 3)
        assert ratios.dtype == torch.float64


def test_gaussian_ratio_is_that_of_the_log_densities() -> None:
    x, prediction, shift = (normal(9, 4, 60, seed=s) for s in range(3))
    sigma, ancestors = torch.tensor([0.5, 0.01, 30.0]), torch.tensor([0, 0, 5, 8, 2, 7])
    settings_ = {"x_coefficient": 0.9, "prediction_coefficient": -0.3, "sigma": sigma, "shift_coefficient": 0.7}
    children = gaussian_step(
        x, prediction, shift=shift, ancestors=ancestors, branch=4, seed=torch.tensor([1, 2, 3]), **settings_
    )
    ratios = agree_gaussian(children, x, prediction, shift=shift, ancestors=ancestors, **settings_)
    coefficients = [float(torch.tensor(c)) for c in (0.9, -0.3, 0.7)]  # as float32 holds them
    mean = (x.double() * coefficients[0] + prediction.double() * coefficients[1])[ancestors][:, None]
    spread = sigma.double().repeat_interleave(2)[:, None, None, None]
    p = torch.distributions.Normal(mean, spread)
    q = torch.distributions.Normal(mean + shift.double()[ancestors][:, None] * coefficients[2], spread)
    expected = (p.log_prob(children.double()) - q.log_prob(children.double())).sum((2, 3))
    assert torch.allclose(ratios, expected, rtol=1e-9, atol=1e-9)


def test_weights_of_gaussian_children_average_one() -> None:
    # E_q[p/q] = 1, with variance e^(|e|^2 / sigma^2) - 1 = 0.65: within 5 standard errors, false alarm 6e-7.
    draws = 1 << 16
    x, shift = torch.zeros(1, 2), torch.tensor([[0.3, -0.4]])
    settings_ = {"x_coefficient": 1.0, "prediction_coefficient": 0.0, "sigma": math.sqrt(0.5), "shift": shift}
    children = gaussian_step(x, x, ancestors=torch.zeros(draws, dtype=torch.int32), **settings_)
    ratios = gaussian_log_ratio(children, x, x, ancestors=torch.zeros(draws, dtype=torch.int32), **settings_)
    assert abs(float(ratios.exp().mean()) - 1) < 5 * math.sqrt((math.exp(0.5) - 1) / draws)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("states", "length", "vocab"), [(6, 1, 1), (9, 70, 22), (5, 8, 33), (3, 5, 513), (2, 3, 9_001)]
)
def test_masked_kernel_agrees_with_reference(states: int, length: int, vocab: int, dtype: torch.dtype) -> None:
    tokens, logits = masked_states(states, length, vocab, dtype=dtype)
    particles = 20 if vocab < 100 else 4
    shift, ancestors = normal(states, length, vocab), torch.randint(0, states, (particles,))
    bias = normal(vocab, seed=1)
    for temperature, given_bias in ((1.0, None), (0.3, bias), (2.0, bias.expand(length, vocab))):
        how = {"temperature": temperature, "bias": given_bias, "ancestors": ancestors}
        children = masked_step(tokens, logits, reveal_probability=0.6, branch=3, **how)
        ratios = agree_masked(tokens, children, logits, shift, **how)
        assert ratios.shape == (particles, 3)
        assert ratios.dtype == torch.float64
        assert torch.equal(agree_masked(tokens.int(), children.int(), logits, shift, **how), ratios)


@pytest.mark.parametrize("vocab", [22, 700])
def test_masked_ratio_is_that_of_the_log_softmax(vocab: int) -> None:
    tokens, logits = masked_states(12, 30, vocab)
    bias, shift, ancestors = normal(30, vocab, seed=1), normal(12, 30, vocab, seed=2) * 2, torch.randint(0, 12, (40,))
    how = {"bias": bias, "temperature": 0.7, "ancestors": ancestors}
    lengths = torch.tensor([30, 11])
    children = masked_step(
        tokens, logits, reveal_probability=0.5, branch=2, seed=torch.tensor([1, 2]), lengths=lengths, **how
    )
    y = (logits.double() + bias) / 0.7
    p, q = y.log_softmax(-1)[ancestors], (y + shift).log_softmax(-1)[ancestors]
    revealed = (children != tokens[ancestors][:, None]).long()
    at = children.clamp(max=vocab - 1)[..., None]
    each = (p[:, None].expand(-1, 2, -1, -1) - q[:, None]).nan_to_num(0.0).gather(-1, at).squeeze(-1)
    assert torch.allclose(
        masked_log_ratio(tokens, children, logits, shift, lengths=lengths, **how), (each * revealed).sum(-1), atol=3e-5
    )
    without = masked_log_ratio(tokens, children, logits, torch.zeros_like(shift), lengths=lengths, **how)
    assert (without == 0).all()


def test_weights_of_masked_children_average_one_exactly() -> None:
    # All of the 4^3 outcomes of revealing three positions, weighted by q: only rounding is left.
    tokens, logits, shift = torch.full((1, 3), 4), normal(1, 3, 4), normal(1, 3, 4, seed=1) * 2
    logits[0, 1, 2] = shift[0, 2, 0] = -math.inf
    q = (logits + shift).double().log_softmax(-1)[0]
    outcomes = torch.tensor([o for o in itertools.product(range(4), repeat=3) if o[1] != 2 and o[2] != 0])
    ratios = agree_masked(tokens, outcomes[None], logits, shift)[0]
    of_q = q[torch.arange(3), outcomes].sum(-1)
    lost = float(logits[0, 2].double().softmax(-1)[0])  # p is positive where q is not
    assert float((of_q + ratios).exp().sum()) == pytest.approx(1 - lost, abs=2e-6)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_small_masked_ratio_agrees_with_reference(data: st.DataObject) -> None:
    vocab, length = data.draw(st.sampled_from([1, 2, 17, 33, 520])), data.draw(st.integers(1, 5))
    value = st.one_of(st.just(-math.inf), st.floats(-1.5e9, 9e8, width=32))
    row = data.draw(st.lists(value, min_size=vocab, max_size=vocab))
    at = data.draw(st.integers(0, vocab - 1))
    row[at] = data.draw(st.floats(-100, 100, width=16))
    logits = torch.tensor(row).expand(2, length, vocab).clone()
    shift = torch.tensor(data.draw(st.lists(st.floats(-1e3, 1e3, width=32), min_size=vocab, max_size=vocab)))
    tokens = torch.full((2, length), vocab)
    children = masked_step(tokens, logits, reveal_probability=0.7, branch=3)
    agree_masked(tokens, children, logits, shift.expand_as(logits))


def test_only_revealed_rows_are_read_and_padding_counts_nothing() -> None:
    tokens, logits = masked_states(6, 40, 22)
    shift = normal(6, 40, 22)
    seeds, lengths = torch.tensor([1, 2, 3]), torch.tensor([40, 3, 25])
    children = masked_step(tokens, logits, reveal_probability=0.4, seed=seeds, lengths=lengths)
    expected = agree_masked(tokens, children, logits, shift, lengths=lengths)
    unread = (children[:, 0] == tokens)[..., None]
    poisoned = agree_masked(
        tokens, children, logits.masked_fill(unread, math.nan), shift.masked_fill(unread, math.nan), lengths=lengths
    )
    assert torch.equal(poisoned, expected)
    beyond = torch.arange(40) >= lengths.repeat_interleave(2)[:, None]
    strange = torch.where(beyond, -5, tokens), torch.where(beyond[:, None], -7, children)
    assert torch.equal(agree_masked(*strange, logits, shift, lengths=lengths), expected)


def test_views_are_read_as_what_they_show() -> None:
    tokens, logits = masked_states(6, 40, 22)
    shift = normal(6, 40, 22)
    children = masked_step(tokens, logits, reveal_probability=0.5, branch=2)
    expected = masked_log_ratio(tokens, children, logits, shift)
    by_token = shift.transpose(0, 2).contiguous().transpose(0, 2)
    by_position = shift.transpose(0, 1).contiguous().transpose(0, 1)
    for view in (by_token, by_position, torch.cat([shift, shift], -1)[..., :22]):
        assert torch.equal(masked_log_ratio(tokens, children, logits, view), expected)
    assert torch.equal(
        masked_log_ratio(tokens, children.transpose(0, 1).contiguous().transpose(0, 1), logits, shift), expected
    )


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_wrong_gaussian_arguments_are_refused(backend: str) -> None:
    x = normal(4, 6)
    children = normal(4, 2, 6)

    def ratio(children: Tensor = children, shift: Tensor = x, **settings_: Any) -> None:
        gaussian_log_ratio(children, x, x, shift=shift, **(NUMBERS | {"backend": backend} | settings_))

    with pytest.raises(ValueError, match=r"children: expected shape \[P, M, ...\] = \[4, M, 6\], got \[4, 6\]"):
        ratio(children=children[:, 0])
    with pytest.raises(TypeError, match=r"children: expected torch.float32, got torch.float64"):
        ratio(children=children.double())
    with pytest.raises(ValueError, match=r"shift: expected the shape of x"):
        ratio(shift=x[:2])
    with pytest.raises(ValueError, match=r"sigma: expected a finite number above 0, got 0"):
        ratio(sigma=0)
    with pytest.raises(ValueError, match=r"sigma: expected a finite number above 0, got 0.0 for group 1"):
        ratio(sigma=torch.tensor([1.0, 0.0]))
    with pytest.raises(ValueError, match=r"one a group"):
        ratio(sigma=torch.ones(3))
    with pytest.raises(IndexError, match=r"ancestors\[3\] is -1, outside the 4 rows of x"):
        ratio(ancestors=torch.tensor([0, 1, 2, -1]))


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_wrong_masked_arguments_are_refused(backend: str) -> None:
    tokens, logits = torch.full((4, 6), 5), torch.zeros(4, 6, 5)
    tokens[:, 0] = 1
    children = tokens[:, None].repeat(1, 2, 1)
    children[:, :, 2] = 3

    def ratio(
        tokens: Tensor = tokens,
        children: Tensor = children,
        logits: Tensor = logits,
        shift: Tensor = logits,
        **settings_: Any,
    ) -> None:
        masked_log_ratio(tokens, children, logits, shift, **({"backend": backend} | settings_))

    def changed(x: Tensor, *at: int, to: float) -> Tensor:
        x = x.clone()
        x[at] = to
        return x

    for _ in builds() if backend == "cpu" else range(1):
        for bad in (math.nan, math.inf, 2e9):
            with pytest.raises(ValueError, match=r"logits\[2, 2\] hold NaN, \+inf or a value above 1e9"):
                ratio(logits=changed(logits, 2, 2, 4, to=bad))
            with pytest.raises(ValueError, match=r"logits with the shift\[2, 2\] hold NaN"):
                ratio(shift=changed(logits, 2, 2, 4, to=bad))
        with pytest.raises(ValueError, match=r"logits\[1, 2\] forbid every token"):
            ratio(logits=changed(logits, 1, 2, to=-math.inf))
        with pytest.raises(ValueError, match=r"logits with the shift\[1, 2\] forbid every token"):
            ratio(shift=changed(logits, 1, 2, to=-2e9))
        for name in ("logits", "shift"):
            with pytest.raises(
                ValueError, match=r"children\[1, 0, 2\] is 3, a token that the law of its step never draws"
            ):
                ratio(**{name: changed(logits, 1, 2, 3, to=-math.inf)})
        with pytest.raises(ValueError, match=r"tokens\[3, 1\] is 6; expected 0 to 4, or 5 for the mask"):
            ratio(tokens=changed(tokens, 3, 1, to=6))
        with pytest.raises(ValueError, match=r"children\[3, 1, 2\] is -1; expected 0 to 4"):
            ratio(children=changed(children, 3, 1, 2, to=-1))
        with pytest.raises(IndexError, match=r"ancestors\[2\] is 4, outside the 4 rows of tokens"):
            ratio(ancestors=torch.tensor([0, 1, 4, 2]))
    with pytest.raises(ValueError, match=r"temperature: expected a positive number, got 0"):
        ratio(temperature=0)
    with pytest.raises(TypeError, match=r"shift: expected float32, got torch.float64"):
        ratio(shift=logits.double())
    with pytest.raises(ValueError, match=r"shift: expected the shape of logits, \[4, 6, 5\], got \[6, 5\]"):
        ratio(shift=logits[0])
    with pytest.raises(TypeError, match=r"children: expected torch.int64, got torch.int32"):
        ratio(children=children.int())
    with pytest.raises(ValueError, match=r"children: expected shape \[P, M, ...\] = \[3, M, 6\]"):
        ratio(ancestors=torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match=r"lengths: expected \[G\] with G dividing the 4 particles, got \[3\]"):
        ratio(lengths=torch.tensor([1, 2, 3]))


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_nothing_to_do(backend: str) -> None:
    none = torch.zeros(0, dtype=torch.int64)
    tokens, logits = torch.full((4, 6), 5), torch.zeros(4, 6, 5)
    children = tokens[:0, None]
    assert masked_log_ratio(tokens, children, logits, logits, ancestors=none, backend=backend).shape == (0, 1)
    assert masked_log_ratio(tokens, tokens[:, None], logits, logits, backend=backend).tolist() == [[0.0]] * 4
    x = torch.zeros(4, 0)
    assert gaussian_log_ratio(x[:, None], x, x, shift=x, backend=backend, **NUMBERS).tolist() == [[0.0]] * 4


def test_compiles_into_one_graph() -> None:
    tokens, logits = masked_states(4, 6, 5)
    children = masked_step(tokens, logits, reveal_probability=0.5)
    x = normal(4, 6)

    def ratios(logits: Tensor, x: Tensor) -> Tensor:
        masked = masked_log_ratio(tokens, children, logits, logits * 2)
        return masked + gaussian_log_ratio(x[:, None] + 1, x, x * 2, shift=x, **NUMBERS)

    compiled = torch.compile(ratios, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(logits, x), ratios(logits, x))
