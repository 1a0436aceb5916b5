"""Learned values against the exact ones."""

from __future__ import annotations

import pytest
import torch

import fastguide as fg
from tests.oracle.gaussian import Mixture, reward
from tests.oracle.masked import TabularMasked

ALPHA = 1.0


@pytest.fixture(scope="module")
def oracle():
    return TabularMasked()


def denoiser(oracle):
    return fg.models.wrap(oracle.denoiser, batch_invariant=True)


def fitted(oracle, value, **options):
    settings = {"alpha": ALPHA, "particles": 2048, "epochs": 20, **options}
    return value.fit(oracle.process, denoiser(oracle), fg.rewards.wrap(oracle.reward, batch_invariant=True), **settings)


def error(oracle, value, exact) -> float:
    """Mean absolute error over the states and steps of fresh unguided trajectories."""
    from fastguide.values.learned import _trajectories

    states, _ = _trajectories(oracle.process, denoiser(oracle), oracle.reward, 500, 99, {})
    gaps = []
    for step, (x, table) in enumerate(zip(states[:-1], exact, strict=False)):
        with torch.no_grad():
            t = torch.full((len(x),), oracle.process.times[step])
            found = value._scale[0] + value._scale[1] * value.network(x, t).double()
        gaps.append((found - table[oracle.row(x)]).abs())
    return float(torch.stack(gaps).mean())


@pytest.mark.parametrize("value", [fg.Regression(), fg.SoftQ()], ids=["regression", "soft q"])
def test_soft_values_are_learned(oracle, value):
    fit = fitted(oracle, value, epochs=40)
    exact = oracle.soft_values(ALPHA)
    spread = float(torch.stack([t[torch.isfinite(t)].std() for t in exact[1:-1]]).mean())
    assert error(oracle, value, exact) < 0.35 * spread
    assert len(fit.loss) == len(fit.held_out) == 40
    assert fit.loss[-1] < fit.loss[0]


def test_mean_values_are_learned(oracle):
    value = fg.Regression("mean")
    fit = fitted(oracle, value)
    # Of a squared error in units of the spread, what is left is the variance that the state does not tell.
    assert fit.held_out[-1] < 0.95
    near = fg.SMC(alpha=1e4)
    assert error(oracle, value, oracle.soft_values(near.alpha)) < 0.4 * fit.spread


@pytest.mark.parametrize("guidance", [fg.SMC(alpha=ALPHA), fg.NestedSMC(alpha=ALPHA, branch=2)], ids=repr)
def test_guidance_is_exact_with_them(oracle, guidance):
    """2,000 groups of 8: the mean of Ẑ within 4 standard errors of Z (false alarms 6e-5)."""
    value = fg.Regression()
    fitted(oracle, value, particles=512, epochs=5)
    result = fg.sample(
        oracle.process, denoiser(oracle), fg.rewards.wrap(oracle.reward, batch_invariant=True), guidance, value=value,
        particles=8, groups=2_000, progress=False,
    )  # fmt: skip
    ratio = torch.exp(result.log_normalizer.groups - oracle.target(ALPHA)[1])
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / 2_000**0.5
    assert result.reward_rows <= len(torch.unique(result.samples, dim=0))


def test_values_do_not_depend_on_batches(oracle):
    value = fg.SoftQ()
    fitted(oracle, value, particles=256, epochs=2)

    def run(**memory):
        return fg.sample(
            oracle.process, denoiser(oracle), oracle.reward, fg.SVDD(branch=3), value=value, particles=50, progress=False,
            memory=fg.Memory(**memory),
        ).samples  # fmt: skip

    assert torch.equal(run(), run(micro_batch=7))
    assert torch.equal(run(), run(merge=False))
    assert torch.equal(run(), run(limit=1))


def test_the_same_seed_fits_the_same_and_nothing_global_moves(oracle):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    networks = []
    for seed in (0, 0, 1):
        value = fg.Regression()
        fitted(oracle, value, particles=256, epochs=2, seed=seed)
        networks.append(torch.cat([p.flatten() for p in value.network.parameters()]))
    assert torch.equal(networks[0], networks[1])
    assert not torch.equal(networks[0], networks[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_parameters_can_be_kept(oracle, tmp_path):
    value = fg.Regression()
    fitted(oracle, value, particles=256, epochs=2)
    torch.save(value.state_dict(), tmp_path / "value.pt")
    copy = fg.Regression()
    copy.load_state_dict(torch.load(tmp_path / "value.pt", weights_only=True), oracle.process)
    samples = [
        fg.sample(
            oracle.process, denoiser(oracle), oracle.reward, fg.SVDD(), value=v, particles=20, progress=False
        ).samples
        for v in (value, copy)
    ]
    assert torch.equal(*samples)


def test_a_network_of_ones_own(oracle):
    class Sum(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(oracle.length, oracle.vocab + 1))

        def forward(self, x, t):
            return self.weight[torch.arange(oracle.length), x].sum(1)

    value = fg.Regression(network=Sum())
    assert (
        fitted(oracle, value, epochs=3, rate=0.05).loss[-1]
        < fitted(oracle, fg.Regression(network=Sum()), epochs=1).loss[0]
    )


def test_real_states():
    process = fg.GaussianProcess(1, steps=8, schedule="cosine")
    mixture = fg.models.wrap(Mixture(process), batch_invariant=True)
    pays = fg.rewards.wrap(reward, batch_invariant=True)
    value = fg.Regression(width=32)
    value.fit(process, mixture, pays, particles=1024, epochs=10)
    result = fg.sample(process, mixture, pays, fg.SMC(), value=value, particles=500, groups=40, progress=False)
    exact = Mixture(process).target().log_z
    assert abs(float(result.log_normalizer) - exact) < 4 * result.log_normalizer.standard_error


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"alpha": 0.0}, ValueError, "alpha"),
        ({"particles": 0}, ValueError, "particles"),
        ({"epochs": 0}, ValueError, "epochs"),
        ({"color": 1}, TypeError, "unknown argument color"),
    ],
)
def test_arguments_are_checked(oracle, change, error, match):
    with pytest.raises(error, match=match):
        fitted(oracle, fg.SoftQ(), **change)


def test_an_unfitted_value_says_so(oracle):
    with pytest.raises(RuntimeError, match=r"call Regression\.fit"):
        fg.sample(oracle.process, denoiser(oracle), oracle.reward, fg.SMC(), value=fg.Regression(), particles=4)
    with pytest.raises(ValueError, match="target"):
        fg.Regression("median")
