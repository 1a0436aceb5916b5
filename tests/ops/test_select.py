from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastguide import _cpu
from fastguide.errors import DegenerateWeights
from fastguide.ops import Selection, select
from fastguide.reference import select as reference
from fastguide.reference.philox import expand_seed
from tests.specs import BUILDS, REFERENCE, assert_same_bits, build

UNBIASED = ["systematic", "stratified", "multinomial", "residual"]
RULES = [*UNBIASED, "argmax", "topk", "gumbel_topk"]
SIZES = [1, 7, 4095, 4096, 4097, 12_289, 20_000]


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def adversaries(n: int, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return log-weights on which float prefix sums, or a single scale, go wrong."""
    x = normal(n, dtype=dtype)
    dominated = torch.full((n,), -14.0, dtype=dtype)
    dominated[n // 2] = 0
    half = torch.where(normal(n, seed=1) > 0, x, -math.inf)
    half[-1] = 1
    blocks = x.clone()
    blocks[:4096] -= 400
    blocks[8192:] += 60
    return {
        **{
            f"sigma {sigma}, offset {offset}": x * sigma + offset for sigma in (1, 5, 30) for offset in (-3000, 0, 3000)
        },
        "one dominates equal others": dominated,
        "half are zero": half,
        "equal": torch.zeros(n, dtype=dtype),
        "blocks of different exponents": blocks,
        "the whole range": torch.linspace(-1.1e9, 1e9, n, dtype=torch.float64).to(dtype),
    }


def assert_agrees(log_weights: Tensor, what: str, builds: list[tuple[str, int]] = BUILDS, **settings: Any) -> Selection:
    """Assert that all builds give the bits of the reference, and return them."""
    with build(*REFERENCE):
        expected = select(log_weights, **settings, backend="torch")
    for level, threads in builds:
        with build(level, threads):
            got = select(log_weights, **settings, backend="cpu")
        assert_same_bits(expected, got, f"{what}, {level}, {threads} threads")
    return expected


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", RULES)
def test_backends_agree_on_adversarial_weights(rule: str, dtype: torch.dtype, n: int) -> None:
    for i, (name, log_weights) in enumerate(adversaries(n, dtype).items()):
        ks = {1, n, max(1, n // 3)} | ({3 * n + 1} if rule not in ("topk", "gumbel_topk") else set())
        k = sorted(ks)[i % len(ks)]
        assert_agrees(log_weights, name, k=k, rule=rule, seed=i, step=n, degenerate="keep")
        if i % 3 == 0:
            assert_agrees(log_weights, name, rule=rule, order="slots", seed=i, step=n, degenerate="keep")


@pytest.mark.parametrize("rule", RULES)
def test_backends_agree_on_many_small_groups(rule: str) -> None:
    assert_agrees(normal(500, 16, 8), "children of parents", k=1, rule=rule, seed=3)
    assert_agrees(normal(3000, 31), "odd size", k=31, rule=rule, order="slots", seed=3)


@pytest.mark.parametrize("rule", RULES)
def test_any_number_of_threads_shares_one_row(rule: str) -> None:
    """150,001 items are work for four threads; the last of 37 blocks is not full."""
    for sigma, order in ((1, "sorted"), (6, "slots")):
        log_weights = normal(150_001) * sigma
        log_weights[::7] = -math.inf
        k = 30_000 if rule in ("topk", "gumbel_topk") and order == "sorted" else None
        with build(*REFERENCE):
            expected = select(log_weights, k, rule=rule, order=order, degenerate="keep", backend="torch")
        for threads in (1, 2, 3, 4):
            with build(_cpu.levels()[-1], threads):
                got = select(log_weights, k, rule=rule, order=order, degenerate="keep", backend="cpu")
            assert_same_bits(expected, got, f"{rule}, {order}, {threads} threads")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backends_agree_on_one_draw_from_each_of_many_small_groups(rule: str, dtype: torch.dtype) -> None:
    for m in (1, 2, 8, 31, 32, 33):
        log_weights = normal(13, 5, m, dtype=dtype) * 20 - 1000
        log_weights[3, 2] = -math.inf
        log_weights[4, :, 0] = -math.inf
        log_weights[5] = torch.tensor([-1.1e9, -9e8], dtype=dtype).repeat(m)[:m]
        log_weights[6, 1] = 9e8
        seeds = torch.arange(13) * 2**58 - 7
        assert_agrees(log_weights, f"M = {m}", k=1, rule=rule, seed=seeds, step=5, degenerate="keep")
        assert_agrees(log_weights, f"M = {m}", k=1, rule=rule, seed=2**63, degenerate="keep")


def test_a_refused_log_weight_among_many_small_groups_is_named() -> None:
    x = normal(100, 8)
    x[97, 3] = math.nan
    with pytest.raises(ValueError, match="nan at group 97, index 3"):
        select(x, 1)
    x[41, 7] = 2e9
    with pytest.raises(ValueError, match="at group 41, index 7"):
        select(x, 1)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    weights=st.lists(
        st.one_of(
            st.floats(-60, 60, width=32),
            st.just(-math.inf),
            st.floats(-2e9, 1e9, width=32),
            st.sampled_from([0.0, -0.0, 1.0]),
        ),
        min_size=1,
        max_size=40,
    ),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    k=st.integers(1, 100),
    rule=st.sampled_from(RULES),
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**28 - 1),
)
def test_backends_agree_on_any_weights(
    weights: list[float], dtype: torch.dtype, k: int, rule: str, seed: int, step: int
) -> None:
    log_weights = torch.tensor(weights, dtype=dtype)
    if rule in ("topk", "gumbel_topk"):
        k = min(k, len(weights))
    builds = [(level, 1) for level in _cpu.levels()]
    got = assert_agrees(log_weights, rule, builds, k=k, rule=rule, seed=seed, step=step, degenerate="keep")
    assert_agrees(log_weights, rule, builds, rule=rule, order="slots", seed=seed, step=step, degenerate="keep")
    if bool((log_weights >= -1e9).any()):
        assert bool((log_weights[got.ancestors.long()] >= -1e9).all()), "a weight of zero was selected"


@pytest.mark.parametrize("n", [7, 4097, 20_000, 2**20])
def test_systematic_counts_are_within_one_of_their_shares(n: int) -> None:
    for name, log_weights in adversaries(n, torch.float64).items():
        for k in (1, n, 3 * n + 1):
            counts = torch.bincount(select(log_weights, k, seed=n).ancestors, minlength=n)
            share = k * torch.softmax(log_weights, 0)
            assert int(counts.sum()) == k
            assert float((counts - share).abs().max()) <= 1 + 1e-6, name


def test_float32_prefix_sums_miss_the_shares_that_integers_meet() -> None:
    n = 2**22
    log_weights = normal(n)
    share = n * torch.softmax(log_weights.double(), 0)
    points = (torch.arange(n) + 0.5) / n
    composed = torch.searchsorted(torch.softmax(log_weights, 0).cumsum(0), points).clamp(max=n - 1)
    worst = [
        float((torch.bincount(ancestors, minlength=n) - share).abs().max())
        for ancestors in (composed, select(log_weights).ancestors)
    ]
    assert worst[0] > 1.5
    assert worst[1] <= 1 + 1e-4


def test_all_draws_go_to_the_only_weight() -> None:
    log_weights = torch.full((8,), -math.inf)
    log_weights[7] = -2.5
    for rule in [*UNBIASED, "argmax"]:
        assert select(log_weights, 4, rule=rule).ancestors.tolist() == [7, 7, 7, 7]


@pytest.mark.parametrize("rule", UNBIASED)
@pytest.mark.parametrize("word", [0, -1, 2**62, -(2**62)])
def test_zero_weights_are_not_selected_at_either_end_of_the_uniform(rule: str, word: int) -> None:
    for n in (8, 4099):
        log_weights = normal(1, n)
        log_weights[0, ::3] = -math.inf
        log_weights[0, -1] = -math.inf
        folded = reference.fold(log_weights)
        for k in (1, 3, n, 2 * n):
            words = torch.full((1, 1 if rule == "systematic" else k), word)
            ancestors = reference.draw(folded, k, rule, words)
            assert bool(((ancestors >= 0) & (ancestors < n)).all())
            assert bool((log_weights[0, ancestors[0]] > -math.inf).all())


@pytest.mark.parametrize("rule", UNBIASED)
def test_expected_counts_are_the_shares(rule: str) -> None:
    """4,000 seeds; each mean count is within 5 standard errors. False-alarm rate: 7 items x 4 rules x 6e-7 = 2e-5."""
    log_weights = torch.tensor([0.0, -1.0, 0.3, -math.inf, -4.0, 1.1, -0.2])
    k, runs = 5, 4000
    ancestors = select(log_weights.expand(runs, -1), k, rule=rule, seed=11).ancestors
    counts = torch.nn.functional.one_hot(ancestors.long(), len(log_weights)).sum(1).double()
    share = k * torch.softmax(log_weights.double(), 0)
    error = counts.std(0) / math.sqrt(runs)
    assert bool(((counts.mean(0) - share).abs() <= 5 * error + 1e-12).all())
    assert counts[:, 3].sum() == 0


def test_variance_falls_from_multinomial_to_systematic() -> None:
    """The multinomial variance is k w (1 - w); 4,000 seeds give it within 15 %, 5 standard errors, false alarms 6e-7."""
    log_weights = normal(20)
    w = torch.softmax(log_weights.double(), 0)
    variance = {}
    for rule in UNBIASED:
        ancestors = select(log_weights.expand(4000, -1), 20, rule=rule, seed=2).ancestors
        variance[rule] = torch.nn.functional.one_hot(ancestors.long(), 20).sum(1).double().var(0).sum()
    exact = (20 * w * (1 - w)).sum()
    assert abs(float(variance["multinomial"] / exact) - 1) < 0.15
    assert variance["systematic"] < variance["residual"] < variance["multinomial"]
    assert variance["stratified"] < variance["multinomial"]


def test_gumbel_topk_takes_first_what_a_draw_would_take() -> None:
    """The first of a Gumbel top-k is a draw from the weights: 5 standard errors, 6 items, false-alarm rate 4e-6."""
    log_weights = torch.tensor([0.0, 1.0, -2.0, 0.5, -math.inf, 0.1])
    ancestors = select(log_weights.expand(20_000, -1), 3, rule="gumbel_topk", seed=1).ancestors
    w = torch.softmax(log_weights.double(), 0)
    frequency = torch.bincount(ancestors[:, 0], minlength=6) / 20_000
    assert bool(((frequency - w).abs() <= 5 * (w * (1 - w) / 20_000).sqrt()).all())
    assert bool((ancestors.sort(1).values.diff() > 0).all()), "drawn twice"


def test_topk_is_descending_and_ties_go_to_the_lowest_index() -> None:
    log_weights = torch.tensor([1.0, 3.0, 3.0, -math.inf, 0.0, -0.0, 3.0])
    assert select(log_weights, 6, rule="topk").ancestors.tolist() == [1, 2, 6, 0, 4, 5]
    assert select(log_weights, 3, rule="argmax").ancestors.tolist() == [1, 1, 1]
    many = (normal(5000) * 4).round()
    order = many.sort(descending=True, stable=True).indices
    for k in (1, 32, 33, 5000):
        assert torch.equal(select(many, k, rule="topk").ancestors.long(), order[:k])


@pytest.mark.parametrize("rule", UNBIASED)
@pytest.mark.parametrize("n", [12, 5000])
def test_slots_keep_survivors_and_give_dead_slots_the_surplus_in_order(rule: str, n: int) -> None:
    log_weights = normal(n) * 2
    ordered = select(log_weights, rule=rule).ancestors.tolist()
    slots = list(range(n))
    surplus = [a for a, before in zip(ordered[1:], ordered[:-1], strict=True) if a == before]
    for slot in sorted(set(slots) - set(ordered)):
        slots[slot] = surplus.pop(0)
    assert select(log_weights, rule=rule, order="slots").ancestors.tolist() == slots


@pytest.mark.parametrize("rule", RULES)
def test_a_group_does_not_depend_on_those_beside_it(rule: str) -> None:
    seeds = torch.tensor([5, 2**62, 5, -1])
    log_weights = normal(4, 3, 300)
    log_weights[2] = log_weights[0]
    together = select(log_weights, 40, rule=rule, seed=seeds, step=9)
    for g in range(4):
        alone = select(log_weights[g : g + 1], 40, rule=rule, seed=seeds[g : g + 1], step=9)
        assert_same_bits([x[g : g + 1] for x in together], alone, f"group {g}")
    assert torch.equal(together.ancestors[0], together.ancestors[2])


def test_parents_of_a_group_draw_differently() -> None:
    ancestors = select(normal(1, 1, 1000).expand(1, 2, 1000), 10).ancestors
    assert not torch.equal(ancestors[0, 0], ancestors[0, 1])


def test_seed_step_and_group_change_the_draws() -> None:
    log_weights = normal(2, 1000)
    base = select(log_weights, 5).ancestors
    assert torch.equal(base, select(log_weights, 5, seed=expand_seed(0, 2)).ancestors)
    assert torch.equal(base, select(log_weights, 5, seed=np.int64(0)).ancestors)  # type: ignore[arg-type]
    for changed in (
        select(log_weights, 5, seed=1),
        select(log_weights, 5, seed=2**64 - 1),
        select(log_weights, 5, step=1),
    ):
        assert not torch.equal(base, changed.ancestors)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-7), (torch.float64, 1.5e-11)])
def test_log_mean_weight_and_ess_are_those_of_float64(dtype: torch.dtype, tolerance: float) -> None:
    for n in (1, 7, 4096, 20_000):
        for sigma in (0.1, 1, 5, 30):
            log_weights = normal(3, n, dtype=dtype) * sigma
            got = select(log_weights)
            x = log_weights.double()
            assert torch.allclose(got.log_mean_weight, x.logsumexp(1) - math.log(n), rtol=1e-13, atol=tolerance)
            exact = torch.exp(2 * x.logsumexp(1) - (2 * x).logsumexp(1))
            assert torch.allclose(got.ess, exact.clamp(1, n), rtol=1e-5 if n > 7 else 1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -7.3, 3000.0])
def test_equal_weights_have_an_ess_of_exactly_their_number(value: float, dtype: torch.dtype) -> None:
    for n in (1, 2, 3, 100, 4097, 100_001):
        got = select(torch.full((n,), value, dtype=dtype))
        assert float(got.ess) == n
        assert got.ancestors.tolist() == list(range(n))


def test_extra_draws_and_fewer_draws_than_items() -> None:
    log_weights = normal(50)
    for k in (1, 7, 49, 51, 151):
        ancestors = select(log_weights, k).ancestors
        assert ancestors.shape == (k,)
        assert ancestors.dtype == torch.int32
        assert bool((ancestors.diff() >= 0).all())


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_a_group_without_weight_is_named_and_others_go_on(backend: str) -> None:
    log_weights = normal(4, 6)
    log_weights[1] = -math.inf
    log_weights[3] = -2e9
    with pytest.raises(DegenerateWeights, match=r"every weight is zero in group 1, group 3 of shape \(4, 6\)") as error:
        select(log_weights, backend=backend)
    assert error.value.groups == (1, 3)
    got = select(log_weights, 8, degenerate="keep", backend=backend)
    assert got.ancestors[1].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    assert got.log_mean_weight[[1, 3]].tolist() == [-math.inf, -math.inf]
    assert got.ess[[1, 3]].tolist() == [0, 0]
    alone = select(log_weights[2:3], 8, seed=expand_seed(0, 4)[2:3], backend=backend)
    assert torch.equal(got.ancestors[2:3], alone.ancestors)
    with pytest.raises(DegenerateWeights, match="group 0 parent 1, group 0 parent 3") as error:
        select(log_weights[None], backend=backend)
    assert error.value.groups == (0,)


@pytest.mark.parametrize("backend", ["cpu", "torch"])
def test_topk_needs_as_many_weights_as_it_draws(backend: str) -> None:
    log_weights = torch.tensor([[0.0, -math.inf, 1.0, -math.inf], [0.0, 1.0, 2.0, 3.0]])
    with pytest.raises(
        DegenerateWeights, match='fewer than the 3 items of nonzero weight that rule="topk" needs in group 0'
    ):
        select(log_weights, 3, rule="topk", backend=backend)
    kept = select(log_weights, 3, rule="topk", degenerate="keep", backend=backend)
    assert kept.ancestors.tolist() == [[2, 0, 2], [3, 2, 1]]


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("value", [math.nan, math.inf, 1.1e9])
def test_a_refused_log_weight_is_named(value: float, backend: str) -> None:
    for shape, where in (
        ((9000,), "index 8000"),
        ((3, 50), "group 2, index 20"),
        ((2, 5, 12), "group 1, parent 4, index 11"),
    ):
        x = normal(*shape)
        flat = {1: 8000, 2: 120, 3: 119}[len(shape)]
        x.view(-1)[flat:] = value
        with pytest.raises(ValueError, match=f"log_weights: .* at {where} of shape"):
            select(x, backend=backend)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"log_weights": [0.0]}, TypeError, "log_weights: expected a torch.Tensor, got list"),
        (
            {"log_weights": torch.zeros(3, dtype=torch.float16)},
            TypeError,
            "expected float32 or float64, got torch.float16",
        ),
        ({"log_weights": torch.zeros(3, dtype=torch.int64)}, TypeError, "expected float32 or float64"),
        ({"log_weights": torch.zeros(())}, ValueError, r"expected \[M\], \[G, M\] or \[G, P, M\]"),
        ({"log_weights": torch.zeros(2, 0)}, ValueError, r"got \(2, 0\)"),
        ({"log_weights": torch.zeros(1, 1, 1, 1)}, ValueError, r"got \(1, 1, 1, 1\)"),
        ({"k": 0}, ValueError, "k: expected a whole number in"),
        ({"k": 2.0}, TypeError, "k: expected a whole number, got 2.0"),
        ({"k": 2**31}, ValueError, "k: expected a whole number in"),
        ({"k": 4, "rule": "topk"}, ValueError, "k = 4 exceeds M = 3"),
        ({"rule": "best"}, ValueError, "rule: unknown value 'best'; choose one of systematic"),
        ({"order": "random"}, ValueError, "order: unknown value 'random'"),
        ({"order": "slots", "k": 2}, ValueError, '"slots" needs k = M, got k = 2 and M = 3'),
        ({"degenerate": "ignore"}, ValueError, "degenerate: unknown value"),
        ({"backend": "metal"}, ValueError, "unknown backend 'metal'"),
        ({"seed": -1}, ValueError, r"seed: expected a whole number in \[0, 2\^64\)"),
        ({"seed": 2**64}, ValueError, "seed: expected"),
        ({"seed": 0.5}, TypeError, "seed: expected a whole number or an int64 tensor"),
        ({"seed": torch.zeros(2, dtype=torch.int64)}, ValueError, r"seed: expected shape \(1,\)"),
        ({"seed": torch.zeros(1)}, TypeError, "seed: expected an int64 tensor"),
        ({"step": -1}, ValueError, "step: expected"),
        ({"step": 2**28}, ValueError, "step: expected"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        select(**{"log_weights": torch.zeros(3), **arguments})


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("shape", [(9,), (3, 40), (2, 3, 8)])
def test_out_is_written_and_returned(shape: tuple[int, ...], backend: str) -> None:
    log_weights = normal(*shape)
    expected = select(log_weights, 5, seed=3, backend=backend)
    out = Selection(*(torch.full_like(x, 77) for x in expected))
    assert select(log_weights, 5, seed=3, backend=backend, out=out) is out
    assert_same_bits(expected, out, "out")


def test_out_is_written_by_a_compiled_function() -> None:
    log_weights = normal(3, 64)
    expected = select(log_weights, 5)
    out = Selection(*(torch.full_like(x, 77) for x in expected))

    def write(x: Tensor) -> Tensor:
        select(x, 5, out=out)
        return x + 1

    torch.compile(write, fullgraph=True, backend="aot_eager")(log_weights)
    assert_same_bits(expected, out, "compiled out")


@pytest.mark.parametrize(
    ("field", "wrong", "error", "message"),
    [
        ("ancestors", [0] * 4, TypeError, "out.ancestors: expected a torch.Tensor, got list"),
        ("ancestors", torch.zeros(2, 4), TypeError, "out.ancestors: expected torch.int32, got torch.float32"),
        (
            "ancestors",
            torch.zeros(2, 5, dtype=torch.int32),
            ValueError,
            r"out.ancestors: expected shape \(2, 4\), got \(2, 5\)",
        ),
        (
            "ancestors",
            torch.zeros(4, 2, dtype=torch.int32).T,
            ValueError,
            "out.ancestors: expected a contiguous tensor",
        ),
        ("log_mean_weight", torch.zeros(2), TypeError, "out.log_mean_weight: expected torch.float64"),
        ("ess", torch.zeros((), dtype=torch.float64), ValueError, r"out.ess: expected shape \(2,\), got \(\)"),
        ("ess", torch.zeros(2, dtype=torch.float64, requires_grad=True), ValueError, "out.ess: requires gradients"),
    ],
)
def test_an_out_that_cannot_be_written_is_named(field: str, wrong: Any, error: type[Exception], message: str) -> None:
    log_weights = normal(2, 4)
    with pytest.raises(error, match=message):
        select(log_weights, out=select(log_weights)._replace(**{field: wrong}))
    with pytest.raises(TypeError, match="out: expected a Selection of three tensors, got Tensor"):
        select(log_weights, out=log_weights)  # type: ignore[arg-type]


def test_an_out_that_overlaps_is_refused() -> None:
    log_weights = normal(6, dtype=torch.float64)
    good = select(log_weights)
    for out in (
        good._replace(ess=good.log_mean_weight),
        good._replace(ess=log_weights[2]),
        good._replace(ancestors=log_weights.view(torch.int32)[:6]),
    ):
        before = log_weights.clone()
        with pytest.raises(ValueError, match="out: its tensors must not overlap log_weights or each other"):
            select(log_weights, out=out)
        assert torch.equal(log_weights, before)


def test_strided_input_is_read_as_it_looks() -> None:
    x = normal(40, 30)
    assert_same_bits(select(x.T.contiguous()), select(x.T), "transposed")
    assert_same_bits(select(x[:, ::2].contiguous()), select(x[:, ::2]), "strided")
    assert_same_bits(select(x[:1].expand(5, 30).contiguous()), select(x[:1].expand(5, 30)), "expanded")
    seeds = torch.arange(80)[::2]
    assert_same_bits(select(x, seed=seeds.contiguous()), select(x, seed=seeds), "strided seeds")


def test_nothing_outside_the_result_changes() -> None:
    x = normal(5, 20_000).requires_grad_()
    before = x.detach().clone()
    state = torch.get_rng_state(), torch.get_num_threads(), torch.get_default_dtype()
    got = select(x, order="slots")
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert (torch.get_num_threads(), torch.get_default_dtype()) == state[1:]
    assert not any(field.requires_grad for field in got)


def test_compiles_into_one_graph() -> None:
    def halve(x: Tensor, step: int) -> Tensor:
        return select(x * 2, x.shape[-1] // 2, step=step).ancestors + 1

    x = normal(3, 64)
    compiled = torch.compile(halve, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, 3), halve(x, 3))
