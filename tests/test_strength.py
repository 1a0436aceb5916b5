"""Temperatures found by a pilot run."""

from __future__ import annotations

import math

import pytest
import torch

import fastguide as fg
from fastguide.strength import divergence

GENERATOR = torch.Generator().manual_seed(0)
REWARDS = torch.randn(4, 1000, generator=GENERATOR, dtype=torch.float64)


def test_divergence_of_normal_rewards():
    """Of r ~ N(0, 1): KL = 1 / (2 alpha²), ESS fraction = exp(−1 / alpha²); 4,000 samples give them within 10 %."""
    kl, ess = (x.mean() for x in divergence(REWARDS, 1.5))
    assert float(kl) == pytest.approx(1 / (2 * 1.5**2), rel=0.1)
    assert float(ess) == pytest.approx(math.exp(-1 / 1.5**2), rel=0.1)


@pytest.mark.parametrize("wish", [{"kl": 0.5}, {"kl": 2.0}, {"ess": 0.5}, {"ess": 0.1}], ids=str)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_the_wish_is_met(wish, scale):
    alpha = fg.AutoAlpha(**wish, pilot=4000).find(REWARDS * scale)
    kl, ess = (float(x.mean()) for x in divergence(REWARDS * scale, alpha))
    assert (kl if "kl" in wish else ess) == pytest.approx(next(iter(wish.values())), rel=1e-6)


def test_forbidden_samples_count_as_weight_zero():
    rewards = torch.tensor([[0.0, 1.0, 2.0, -math.inf] * 8]).double()
    auto = fg.AutoAlpha(kl=math.log(4 / 3) + 0.1, pilot=32)
    kl, _ = divergence(rewards, auto.find(rewards))
    assert float(kl) == pytest.approx(math.log(4 / 3) + 0.1)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"kl": 1.0, "ess": 0.5}, "one of them"),
        ({"kl": 0.0}, "kl"),
        ({"kl": 6.0}, "a larger pilot"),
        ({"ess": 1.0}, "ess"),
        ({"pilot": 3}, "pilot"),
    ],
)
def test_wishes_are_checked(settings, match):
    with pytest.raises(ValueError, match=match):
        fg.AutoAlpha(**settings)


def test_constant_rewards_have_no_strength():
    with pytest.raises(ValueError, match="all equal"):
        fg.AutoAlpha().find(torch.full((2, 8), 3.0))


def test_auto_is_a_default_wish():
    assert fg.SMC(alpha="auto") == fg.SMC(alpha=fg.AutoAlpha(kl=2.0)) != fg.SMC(alpha=fg.AutoAlpha(kl=1.0))
    assert repr(fg.SVDD(alpha="auto").alpha) == "AutoAlpha(kl=2, pilot=256)"
    with pytest.raises(ValueError, match=r"found by fg\.sample"):
        fg.Steering(fg.SMC(alpha="auto"), particles=4)


class TestSample:
    def run(self, guidance, **options):
        row = torch.arange(4.0) / 4
        return fg.sample(
            fg.MaskedProcess(length=12, vocab=4, steps=6), lambda x, t: row.expand(*x.shape, 4),
            lambda x0: (x0 == 3).sum(1).double(), guidance, **{"particles": 64, "progress": False, **options},
        )  # fmt: skip

    @pytest.mark.parametrize("guidance", [fg.SMC, fg.NestedSMC, fg.SVDD, fg.BestOfN])
    def test_runs_at_the_number_found(self, guidance):
        result = self.run(guidance(alpha="auto"), groups=2)
        assert 0.1 < result.guidance.alpha < 5.0
        assert result.alpha == result.guidance.alpha
        assert torch.equal(self.run(guidance(alpha=result.alpha), groups=2).samples, result.samples)

    def test_the_target_is_as_far_as_asked(self):
        """r is binomial(12, p): the exact KL at the alpha found is within a tenth of the wish (16,384 pilot samples)."""
        alpha = self.run(fg.SMC(alpha=fg.AutoAlpha(kl=1.0, pilot=2**14))).alpha
        p = float(torch.softmax(torch.arange(4.0) / 4, 0)[3])
        k = torch.arange(13.0, dtype=torch.float64)
        logs = torch.lgamma(torch.tensor(13.0).double()) - torch.lgamma(k + 1) - torch.lgamma(13 - k)
        prior = (logs + k * math.log(p) + (12 - k) * math.log(1 - p)).exp()
        target = prior * (k / alpha).exp()
        target /= target.sum()
        assert float((target * (target / prior).log()).sum()) == pytest.approx(1.0, rel=0.1)

    def test_is_told(self, capsys):
        self.run(fg.SMC(alpha="auto"), progress=True)
        assert "unguided samples: KL to the pretrained model 2.00 nats" in capsys.readouterr().err
        self.run(fg.SMC(alpha="auto"))
        assert capsys.readouterr().err == ""
