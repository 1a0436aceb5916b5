"""First states by preconditioned Crank–Nicolson: exact weights, the law of the start, what is refused."""

from __future__ import annotations

import math

import pytest
import torch

import fastguide as fg
from fastguide.guidance import crank_nicolson, pcn
from tests.oracle.gaussian import Mixture, moments, reward

# Little noise at the start, so that the first state decides much.
PROCESS = fg.GaussianProcess(1, steps=4, sigmas=(3.0, 2.0, 1.2, 0.6, 0.0))
GUIDANCES = [
    fg.SMC(),
    fg.SMC(potential="max_difference", ess_threshold=1.0),
    fg.SMC(value_steps=(2,)),
    fg.NestedSMC(branch=2),
    fg.BestOfN(),
    fg.TDS(scale=0.5),
    fg.Scheduled({0: fg.SMC(alpha=2.0), 2: fg.SMC(alpha=1.0)}),
]


def run(guidance, particles, groups, process=PROCESS, pays=reward, **options):
    denoiser = fg.models.wrap(Mixture(process), batch_invariant=True)
    pays = fg.rewards.wrap(pays, batch_invariant=True)
    return fg.sample(process, denoiser, pays, guidance, particles=particles, groups=groups, progress=False, **options)


def is_unbiased(guidance, seed=0):
    """5,000 groups of 4: the mean of Ẑ within 4 standard errors of Z (false alarms 6e-5)."""
    result = run(guidance, 4, 5_000, seed=seed)
    ratio = torch.exp(result.log_normalizer.groups - Mixture(PROCESS).target().log_z)
    error = float(ratio.std()) / math.sqrt(len(ratio))
    assert error < 0.05
    assert abs(float(ratio.mean()) - 1.0) < 4 * error, f"mean Ẑ / Z = {float(ratio.mean()):.3f} ± {error:.3f}"


@pytest.mark.parametrize("guidance", GUIDANCES, ids=repr)
def test_the_normalizer_is_unbiased(guidance):
    is_unbiased(fg.PCN(guidance, moves=2, scale=0.5))


def test_the_normalizer_is_unbiased_with_drift():
    is_unbiased(fg.PCN(fg.SMC(), moves=2, scale=0.5, langevin=True))


def test_the_ratio_left_out_shows(monkeypatch):
    monkeypatch.setattr(pcn._Started, "begin", fg.PCN.begin)
    with pytest.raises(AssertionError, match="mean Ẑ"):
        is_unbiased(fg.PCN(fg.SMC(), moves=2, scale=0.5))


@pytest.mark.parametrize("langevin", [False, True])
@pytest.mark.parametrize("guidance", [fg.SMC(), fg.BestOfN(), fg.NestedSMC(branch=2)], ids=repr)
def test_samples_follow_the_target(guidance, langevin):
    """16 groups of 2,000: log Z within 4 standard errors (false alarms 6e-5); moments within 0.1 (their spread is 0.03)."""
    exact = Mixture(PROCESS).target()
    result = run(fg.PCN(guidance, langevin=langevin), 2_000, 16)
    found = moments(result)
    assert abs(found.log_z - exact.log_z) < 4 * result.log_normalizer.standard_error
    assert abs(found.mean - exact.mean) < 0.1
    assert abs(found.variance - exact.variance) < 0.1


@pytest.mark.parametrize("langevin", [False, True])
def test_moves_leave_the_soft_optimal_start_as_it_is(langevin):
    """The mean of v_T over 20,000 moved states is that over the prior tilted by exp(v_T), by quadrature, within 0.03.

    The variance of v_T is about 1, and the copies of resampled states make their 20,000 worth some 5,000: 4 standard errors are
    0.06 without moves, and less with them.
    """
    result = run(fg.PCN(fg.SVDD(branch=2), moves=6, scale=0.5, langevin=langevin), 20_000, 1)
    starts = torch.stack([result.replay(i)[0, 0] for i in range(0, 20_000, 40)]).double()
    x = torch.linspace(-15, 15, 3001, dtype=torch.float64)
    x0 = PROCESS.clean(x[:, None], Mixture(PROCESS).output(x[:, None], 0)[:, None], 0)
    tilted = torch.softmax(-0.5 * (x / PROCESS.prior_std) ** 2 + reward(x0), 0)
    mean = float((tilted * x).sum())
    deviation = float((tilted * (x - mean) ** 2).sum().sqrt())
    # 500 of them: 4 standard errors, twice over for what copies have in common.
    assert abs(float(starts.mean()) - mean) < 8 * deviation / math.sqrt(500)
    assert len(starts.unique()) > 490
    assert 0.2 < result.provenance["pcn_acceptance"] < 0.95


@pytest.mark.parametrize("scale", [0.2, 0.7, 1.0])
def test_the_ratio_of_drifting_proposals_is_that_of_their_densities(scale):
    generator = torch.Generator().manual_seed(0)
    x, y, at_x, at_y = (torch.randn(50, 3, 2, generator=generator, dtype=torch.float64) for _ in range(4))
    spread, left = 2.5, math.sqrt(1.0 - scale**2)

    def log_normal(z, mean, deviation):
        return -0.5 * ((z - mean) / deviation).square().sum((1, 2))

    def log_move(a, b, at_a):
        return log_normal(b, left * a + (1.0 - left) * spread**2 * at_a, scale * spread)

    there = log_normal(x, 0.0, spread) + log_move(x, y, at_x)
    back = log_normal(y, 0.0, spread) + log_move(y, x, at_y)
    torch.testing.assert_close(crank_nicolson.log_ratio(x, y, at_x, at_y, left, spread), back - there)


@pytest.mark.parametrize("langevin", [False, True])
def test_a_constant_value_takes_every_move(langevin):
    result = run(fg.PCN(fg.SMC(), scale=1.0, langevin=langevin), 64, 2, pays=lambda x0: 0.0 * x0[:, 0])
    assert result.provenance["pcn_acceptance"] == 1.0
    assert float(result.log_normalizer) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("langevin", [False, True])
def test_nothing_but_seeds_decides(langevin):
    settings = fg.PCN(fg.SMC(), moves=3, langevin=langevin)
    whole = run(settings, 32, 3, seed=[5, 6, 7])
    alone = run(settings, 32, 1, seed=[6])
    assert torch.equal(whole.samples[32:64], alone.samples)
    assert torch.equal(whole.log_weights[32:64], alone.log_weights)
    for memory in (fg.Memory(limit=1), fg.Memory(micro_batch=5)):
        assert torch.equal(run(settings, 32, 3, seed=[5, 6, 7], memory=memory).samples, whole.samples)
    assert torch.equal(whole.replay(40)[-1], whole.samples[40])


def test_moves_are_counted_and_paid_for():
    plain, moved = run(fg.SMC(), 32, 1), run(fg.PCN(fg.SMC(), moves=3), 32, 1)
    assert moved.denoiser_rows == plain.denoiser_rows + 4 * 32
    assert moved.reward_rows == plain.reward_rows + 4 * 32
    drifting = run(fg.PCN(fg.SMC(), moves=3, langevin=True), 32, 1)
    assert drifting.denoiser_rows == plain.denoiser_rows + 8 * 32
    assert drifting.reward_rows == plain.reward_rows + 8 * 32
    limit = fg.Budget(denoiser_rows=300)
    assert run(fg.PCN(fg.SMC(), moves=3), 32, 1, budget=limit).denoiser_rows <= 300
    with pytest.raises(ValueError, match="denoiser_rows: 200 cannot pay"):
        run(fg.PCN(fg.SMC(), moves=3), 32, 1, budget=fg.Budget(denoiser_rows=200))


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: fg.PCN(fg.SMC), TypeError, "guidance: expected"),
        (lambda: fg.PCN(fg.ParticleGibbs()), TypeError, "guidance: expected"),
        (lambda: fg.PCN(fg.Beam()), ValueError, "alpha"),
        (lambda: fg.PCN(fg.SMC(alpha="auto")), ValueError, "alpha"),
        (lambda: fg.PCN(fg.SMC(), moves=0), ValueError, "moves"),
        (lambda: fg.PCN(fg.SMC(), scale=1.5), ValueError, "scale"),
        (lambda: run(fg.PCN(fg.SMC()), 4, 1, x_init=torch.zeros(1)), ValueError, "x_init"),
    ],
)
def test_what_is_refused(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_only_gaussian_processes_are_moved():
    process = fg.MaskedProcess(length=2, vocab=3, steps=2)
    with pytest.raises(TypeError, match=r"process: PCN .* GaussianProcess, not of MaskedProcess"):
        fg.sample(
            process,
            lambda x, t: torch.zeros(len(x), 2, 3),
            lambda x: torch.zeros(len(x)),
            fg.PCN(fg.SMC()),
            progress=False,
        )
