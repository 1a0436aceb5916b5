from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fastguide.ops.gaussian_step import gaussian_step
from fastguide.reference.normal import normal_pair
from tests.specs import builds

NUMBERS: dict[str, Any] = {"x_coefficient": 0.9, "prediction_coefficient": -0.3, "sigma": 0.5}
NOISE: dict[str, Any] = {"x_coefficient": 0.0, "prediction_coefficient": 0.0, "sigma": 1.0}

# states, trailing shape, particles, branch: rows of one element and of many tiles, lengths that 4 does not divide
SHAPES: list[tuple[int, tuple[int, ...], int, int]] = [
    (5, (7,), 5, 1),
    (6, (1,), 9, 2),
    (6, (), 9, 2),
    (33, (3, 5, 5), 200, 3),
    (10, (4,), 3_000, 1),
    (4, (1_024,), 5, 2),
    (4, (1_030,), 5, 2),
    (3, (2, 3_001), 4, 3),
    (2, (4_096,), 2, 1),
]


def states(count: int, *shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def agree(x: Tensor, prediction: Tensor, **settings: Any) -> Tensor:
    """Assert that every build of the kernel gives the bits of the reference, and return them."""
    expected = gaussian_step(x, prediction, backend="torch", **settings)
    for variant in builds():
        got = gaussian_step(x, prediction, backend="cpu", **settings)
        assert torch.equal(got.view(torch.int32), expected.view(torch.int32)), variant
    return expected


def noise(rows: int, size: int, **settings: Any) -> Tensor:
    zero = torch.zeros(1, size)
    return gaussian_step(zero, zero, ancestors=torch.zeros(rows, dtype=torch.int32), **NOISE, **settings)[:, 0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernel_agrees_with_reference(shape: tuple[int, tuple[int, ...], int, int], dtype: torch.dtype) -> None:
    count, trailing, particles, branch = shape
    x, prediction = states(count, *trailing), states(count, *trailing, dtype=dtype, seed=1)
    settings_ = {"ancestors": torch.randint(0, count, (particles,)), "branch": branch, "seed": 2**63 + 5, "step": 3}
    children = agree(x, prediction, **NUMBERS, **settings_)
    assert children.shape == (particles, branch, *trailing)
    assert children.dtype == torch.float32
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        shift = states(count, *trailing, dtype=kind, seed=2)
        agree(x, prediction, shift=shift, shift_coefficient=0.7, **NUMBERS, **settings_)


@pytest.mark.parametrize(("rows", "size"), [(700, 3_001), (40_000, 54)])
def test_children_too_many_for_the_caches_agree_with_reference(rows: int, size: int) -> None:
    x = states(3, size)
    ancestors = torch.arange(rows, dtype=torch.int32) % 3
    expected = gaussian_step(x, x, ancestors=ancestors, **NUMBERS, backend="torch")
    # Memory that begins between two registers, and past it a value that must stay.
    out = torch.empty(rows * size + 8)
    for offset in (0, 3):
        part = out[offset : offset + rows * size].view(rows, 1, size)
        for variant in builds():
            out.fill_(7)
            assert gaussian_step(x, x, ancestors=ancestors, **NUMBERS, out=part) is part
            assert torch.equal(part, expected), variant
            assert (out[:offset] == 7).all()
            assert (out[offset + rows * size :] == 7).all()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_small_step_agrees_with_reference(data: st.DataObject) -> None:
    count, size = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 40))
    groups, per_group = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 4))
    coefficient = st.floats(-1e3, 1e3, width=32)
    agree(
        states(count, size, seed=data.draw(st.integers(0, 99))),
        states(count, size, seed=1),
        x_coefficient=data.draw(coefficient),
        prediction_coefficient=torch.tensor(data.draw(st.lists(coefficient, min_size=groups, max_size=groups))),
        sigma=torch.tensor(data.draw(st.lists(st.floats(0, 9, width=32), min_size=groups, max_size=groups))),
        ancestors=torch.randint(0, count, (groups * per_group,)),
        branch=data.draw(st.integers(1, 3)),
        seed=torch.tensor(data.draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=groups, max_size=groups))),
        step=data.draw(st.integers(0, 2**28 - 1)),
    )


def test_normals_are_those_of_box_and_muller() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randint(0, 2**32, (1 << 20,), generator=generator) for _ in range(2))
    n = ((a >> 1).float() * 256 + ((b & 255) + 0.5)).double()  # rounded to float32, as stated
    r = (-2 * torch.log(n * 2.0**-39)).sqrt()
    w = (((b >> 8 & 0x3FFFFF) + 0.5) * 2.0**-22 - 0.5) * math.pi / 2
    cosine = torch.where(b >> 31 == 1, -w.cos(), w.cos())
    swapped = b >> 30 & 1 == 1
    first, second = normal_pair(a, b)
    for got, want in (
        (first, r * torch.where(swapped, w.sin(), cosine)),
        (second, r * torch.where(swapped, cosine, w.sin())),
    ):
        assert ((got - want).abs() <= want.abs() * 2.0**-21).all()


def test_the_largest_normal_and_the_smallest_radius() -> None:
    most = math.sqrt(80 * math.log(2))
    # w = -1/2 + 2^-23 puts the sine at its largest: the greatest of both normals is sqrt(1/2) of the radius.
    w = torch.arange(2**22, 2**30, 2**22)
    first, second = normal_pair(torch.zeros_like(w), w & ~0xFF)
    assert float(torch.hypot(first, second).max()) == pytest.approx(most, rel=1e-6)
    assert float(first.abs().max()) == pytest.approx(most, rel=1e-6)
    last = normal_pair(torch.tensor([2**32 - 1]), torch.tensor([255]))
    assert [float(z) for z in last] == [0.0, 0.0]


def test_known_answer() -> None:
    # So that a change of the map from counters to elements cannot pass unseen.
    known = ["-0x1.19d85p-2", "0x1.199cbep+0", "-0x1.b27e54p+0", "-0x1.baf9d2p+0", "-0x1.31d84ap+0", "-0x1.07595cp-2"]
    zero = torch.zeros(1, 6)
    got = gaussian_step(zero, zero, **NOISE, seed=torch.tensor([1]), step=2)
    assert got.flatten().tolist() == [float.fromhex(x) for x in known]


def standard_normals(draws: int, seed: int) -> Tensor:
    return noise(draws >> 12, 1 << 12, seed=seed).flatten()


def test_moments_and_tails_are_those_of_a_normal() -> None:
    # Each of the 6 statistics within 5 standard errors: false alarm 6e-7 each; tails (Poisson counts, the last of mean
    # 38) within 5 standard errors and one: 4e-6 each at most.
    draws = 1 << 24
    counts = {bound: [0, 0] for bound in (3.0, 4.0, 5.0)}
    total = 0
    for seed in range(4):
        z = standard_normals(draws, seed)
        total += draws
        for bound, (below, above) in counts.items():
            counts[bound] = [below + int((z < -bound).sum()), above + int((z > bound).sum())]
        assert float(z.abs().max()) < 7.4471
        z = z.double()
        for power, mean, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10_170)):
            assert abs(float((z**power).mean()) - mean) < 5 * math.sqrt(variance / draws), (seed, power)
    for bound, both in counts.items():
        expected = total * math.erfc(bound / math.sqrt(2)) / 2
        for count in both:
            assert abs(count - expected) < 5 * math.sqrt(expected) + 1, bound


def test_quantiles_are_those_of_a_normal() -> None:
    # Chi-square on 1,023 degrees of freedom: above 1,270 with probability 2e-7.
    bins, draws = 1_024, 1 << 24
    edges = math.sqrt(2) * torch.erfinv(torch.arange(1, bins).double() / bins * 2 - 1)
    z = standard_normals(draws, 11)
    counts = torch.bucketize(z, edges.float()).bincount(minlength=bins).double()
    probabilities = torch.diff(torch.special.ndtr(edges.float().double()), prepend=torch.zeros(1), append=torch.ones(1))
    expected = probabilities * draws
    assert float(((counts - expected) ** 2 / expected).sum()) < 1_270


def test_neighbours_slots_steps_and_groups_are_independent() -> None:
    # Correlations of z, of z^2 and of whether |z| exceeds its median within 5 standard errors: false alarm 6e-7 each.
    rows, size = 1 << 10, 1 << 11
    here, groups = noise(rows, size, seed=5), noise(rows, size, seed=torch.tensor([3, 4]))
    pairs = {
        "step": (here, noise(rows, size, seed=5, step=1)),
        "seed": (here, noise(rows, size, seed=6)),
        "slot": (here, here.roll(1, 0)),
        "group": (groups, groups.roll(rows // 2, 0)),
        **{f"element {lag}": (here, here.roll(lag, 1)) for lag in (1, 2, 3, 4, 8, 32, 64, 128)},
    }
    for name, (one, other) in pairs.items():
        for f in (lambda z: z, lambda z: (z * z - 1) / math.sqrt(2), lambda z: (z.abs() > 0.6745) * 2.0 - 1):
            correlation = float((f(one.double()) * f(other.double())).mean())
            assert abs(correlation) < 5 / math.sqrt(rows * size / 2), name


def test_children_are_particles_with_slots_of_their_own() -> None:
    x, prediction = states(8, 21), states(8, 21, seed=1)
    family = gaussian_step(x, prediction, **NUMBERS, branch=4, seed=9, step=2)
    for m in range(4):
        alone = gaussian_step(x, prediction, **NUMBERS, seed=9, step=2, slots=torch.arange(8) * 4 + m)
        assert torch.equal(alone[:, 0], family[:, m])


@pytest.mark.parametrize("size", [6, 1_500])
def test_a_subset_with_its_slots_repeats_its_part(size: int) -> None:
    x, prediction = states(9, size), states(9, size, seed=1)
    ancestors = torch.tensor([0, 0, 5, 8, 2, 2, 2, 7, 1, 3, 4, 6])
    seeds, sigma = torch.tensor([11, -12, 13]), torch.tensor([0.5, 0.0, 2.0])
    settings_ = {**NUMBERS, "branch": 2, "step": 5}
    whole = gaussian_step(x, prediction, ancestors=ancestors, seed=seeds, **{**settings_, "sigma": sigma})
    some = torch.tensor([10, 1, 6, 7])
    part = agree(
        x,
        prediction,
        ancestors=ancestors[some],
        seed=seeds[some // 4],
        slots=(some % 4).int(),
        **{**settings_, "sigma": sigma[some // 4]},
    )
    assert torch.equal(part, whole[some])


def test_without_sigma_nothing_is_drawn_or_added() -> None:
    x = torch.tensor([[-0.0, 0.0, 2.0, math.inf, math.nan]])
    for size in (5, 1_500):
        tiled = x.repeat(1, size // 5)
        finite = tiled[:, tiled[0].isfinite()]
        got = agree(finite, finite, **{**NOISE, "x_coefficient": 1, "sigma": 0})
        assert torch.equal(got[:, 0], finite)
        for _ in builds():
            child = gaussian_step(tiled, torch.zeros_like(tiled), **{**NOISE, "x_coefficient": 1, "sigma": 0})
            assert torch.equal(child[0, 0].nan_to_num(9), tiled[0].nan_to_num(9))


@pytest.mark.parametrize("size", [10, 2_000])
def test_nan_and_infinity_stay_where_they_enter(size: int) -> None:
    x, prediction = states(2, size), states(2, size, seed=1)
    clean = gaussian_step(x, prediction, **NUMBERS)
    x[0, 3], prediction[1, 7] = math.nan, -math.inf
    expected = gaussian_step(x, prediction, **NUMBERS, backend="torch")
    assert expected[0, 0, 3].isnan()
    assert expected[1, 0, 7] == math.inf
    for _ in builds():
        got = gaussian_step(x, prediction, **NUMBERS)
        assert got.isfinite().sum() == got.numel() - 2
        assert torch.equal(got.nan_to_num(9, 8, 7), expected.nan_to_num(9, 8, 7))
        assert torch.equal(got[got.isfinite()], clean[got.isfinite()])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_converted_exactly(dtype: torch.dtype) -> None:
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    prediction = bits[bits.isfinite()][None]
    got = agree(
        torch.zeros_like(prediction, dtype=torch.float32),
        prediction,
        **{**NOISE, "prediction_coefficient": 1, "sigma": 0},
    )
    assert torch.equal(got[0], prediction.float())


def test_rows_may_lie_apart_and_other_views_are_copied() -> None:
    wide = states(5, 6, 4, 4)
    x, prediction = wide[:, :3], wide[:, 3:].half()
    assert not x.is_contiguous()
    expected = gaussian_step(x.contiguous(), prediction.contiguous(), **NUMBERS)
    assert torch.equal(agree(x, prediction, **NUMBERS), expected)
    assert torch.equal(agree(x.transpose(1, 3).contiguous().transpose(1, 3), prediction, **NUMBERS), expected)
    assert torch.equal(agree(x[:1].expand(5, 3, 4, 4), prediction, **NUMBERS)[0], expected[0])
    assert not gaussian_step(x.clone().requires_grad_(), prediction, **NUMBERS).requires_grad


def test_coefficients_are_numbers_or_one_a_group() -> None:
    x, prediction, shift = (states(6, 9, seed=s) for s in range(3))
    seeds = torch.tensor([1, 2])
    values = {
        "x_coefficient": (0.9, 1.1),
        "prediction_coefficient": (-1.0, 0.2),
        "shift_coefficient": (2.0, 0.0),
        "sigma": (0.5, 3),
    }
    both = gaussian_step(
        x,
        prediction,
        shift=shift,
        seed=seeds,
        **{name: torch.tensor(v, dtype=torch.float64) for name, v in values.items()},
    )
    for g in range(2):
        own = slice(3 * g, 3 * g + 3)
        numbers: dict[str, Any] = {name: v[g] for name, v in values.items()}
        alone = gaussian_step(x[own], prediction[own], shift=shift[own], seed=seeds[g : g + 1], **numbers)
        assert torch.equal(alone, both[own])


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_wrong_arguments_are_refused(backend: str) -> None:
    x = states(4, 6)

    def step(x: Tensor = x, prediction: Tensor = x, **settings_: Any) -> None:
        gaussian_step(x, prediction, **({**NUMBERS, "backend": backend} | settings_))

    with pytest.raises(TypeError, match=r"x: expected float32, got torch.float64"):
        step(x=x.double())
    with pytest.raises(TypeError, match=r"prediction: expected float32, float16 or bfloat16, got torch.int64"):
        step(prediction=x.long())
    with pytest.raises(ValueError, match=r"prediction: expected the shape of x, \[4, 6\], got \[4, 5\]"):
        step(prediction=x[:, :5])
    with pytest.raises(ValueError, match=r"shift: expected the shape of x"):
        step(shift=x[:3])
    with pytest.raises(ValueError, match=r"x: expected shape \[U, ...\], got a scalar"):
        step(x=x[0, 0], prediction=x[0, 0])
    for bad in (math.nan, math.inf, 1e39):
        with pytest.raises(ValueError, match=r"x_coefficient: expected a finite number, got"):
            step(x_coefficient=bad)
    with pytest.raises(ValueError, match=r"sigma: expected a finite number at least 0, got -1"):
        step(sigma=-1)
    with pytest.raises(ValueError, match=r"sigma: .*got -2.0 for group 1"):
        step(sigma=torch.tensor([1.0, -2.0]), seed=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match=r"sigma: expected a number or shape \[1\], one a group, got \[2\]"):
        step(sigma=torch.tensor([1.0, 2.0]))
    with pytest.raises(TypeError, match=r"sigma: expected a number or a floating-point tensor \[G\], got torch.int64"):
        step(sigma=torch.tensor([1]))
    with pytest.raises(IndexError, match=r"ancestors\[1\] is 4, outside the 4 rows of x"):
        step(ancestors=torch.tensor([0, 4, -1]))
    with pytest.raises(IndexError, match=r"slots\[2\] is -1"):
        step(slots=torch.tensor([0, 1, -1, 2]))
    with pytest.raises(IndexError, match=r"slots\[3\] is 2147483648; with branch = 2"):
        step(slots=torch.tensor([0, 1, 2, 2**31]), branch=2)
    with pytest.raises(ValueError, match="seed"):
        step(seed=torch.tensor([1, 2, 3]))
    with pytest.raises(ValueError, match="step"):
        step(step=-1)
    with pytest.raises(ValueError, match="branch"):
        step(branch=0)
    with pytest.raises(ValueError, match=r"out: expected shape \(4, 1, 6\), got \(4, 6\)"):
        step(out=torch.empty(4, 6))
    with pytest.raises(TypeError, match=r"out: expected torch.float32, got torch.float64"):
        step(out=torch.empty(4, 1, 6, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"out: must not overlap an input"):
        step(out=x[:, None])


@pytest.mark.parametrize("backend", ["torch", "cpu"])
def test_nothing_to_do(backend: str) -> None:
    settings_ = {**NUMBERS, "backend": backend}
    assert gaussian_step(torch.zeros(0, 3), torch.zeros(0, 3), **settings_).shape == (0, 1, 3)
    assert gaussian_step(torch.zeros(4, 0), torch.zeros(4, 0), **settings_, branch=2).shape == (4, 2, 0)
    none = torch.zeros(0, dtype=torch.int64)
    assert gaussian_step(torch.zeros(4, 3), torch.zeros(4, 3), **settings_, ancestors=none).shape == (0, 1, 3)


def test_inputs_and_global_state_are_left_alone() -> None:
    x, random, threads = states(4, 6), torch.get_rng_state(), torch.get_num_threads()
    before = x.clone()
    gaussian_step(x, x, **NUMBERS)
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.get_num_threads() == threads


def test_compiles_into_one_graph() -> None:
    x = states(4, 6)

    def step(x: Tensor, out: Tensor | None = None) -> Tensor:
        return gaussian_step(x, x * 2, **NUMBERS, seed=3, out=out).flatten(0, 1)

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x), step(x))
    out = torch.empty(4, 1, 6)
    assert torch.equal(compiled(x, out), step(x))
    assert torch.equal(out[:, 0], step(x))
