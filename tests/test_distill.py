"""A student of guided runs: nearer to the target, and as a proposal exact all the same."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import fastguide as fg
from tests.oracle.masked import TabularMasked

ALPHA = 0.4


class Table(nn.Module):
    """Logits of every state, at first those of an oracle."""

    def __init__(self, oracle):
        super().__init__()
        self.oracle = oracle
        self.logits = nn.Parameter(oracle.logits_of.float().clone())

    def forward(self, x, t):
        return self.logits[self.oracle.row(x)]


@dataclass(frozen=True)
class Exact:
    """The soft value by enumeration: what the loss of a step learns is only as good as the values."""

    oracle: TabularMasked
    reads_output = False

    def look(self, states):
        return self.oracle.soft_values(ALPHA)[states.step][self.oracle.row(states.x)]

    def values(self, looked, rewards, alpha):
        return looked


def divergence(oracle, student=None):
    """KL of the target from the law of the process as run, by the student's draws where there is one."""
    target, _ = oracle.target(ALPHA)
    own = TabularMasked(temperature=oracle.temperature, bias=oracle.bias)
    if student is not None:
        logits = student.logits.detach().double() + (0.0 if oracle.bias is None else oracle.bias)
        own.__dict__["draws"] = torch.softmax(logits / oracle.temperature, -1)
    return float(torch.where(target > 0, target * (target / own.law()).log(), 0.0).sum())


def fitted(oracle, loss, guidance, **options):
    distilled = fg.Distill(Table(oracle), loss=loss, **{k: options.pop(k) for k in ("roll_in",) if k in options})
    fit = distilled.fit(
        oracle.process, fg.models.wrap(oracle.denoiser, batch_invariant=True), oracle.reward, guidance,
        **{"particles": 1_000, "epochs": 6, "rate": 0.03, "bias": oracle.bias, "value": Exact(oracle)} | options,
    )  # fmt: skip
    return distilled, fit


def run(oracle, guidance, particles, groups, **options):
    denoiser = fg.models.wrap(oracle.denoiser, batch_invariant=True)
    return fg.sample(
        oracle.process, denoiser, fg.rewards.wrap(oracle.reward, batch_invariant=True), guidance, particles=particles,
        groups=groups, progress=False, bias=oracle.bias, **options,
    )  # fmt: skip


CASES = {
    "guided": ("guided", fg.SMC(alpha=ALPHA), {}),
    "per step": ("per_step", fg.NestedSMC(alpha=ALPHA, branch=16), {}),
    "per step of base": ("per_step", fg.SVDD(alpha=ALPHA, branch=16), {"roll_in": "base"}),
}


@pytest.fixture(scope="module")
def oracle():
    return TabularMasked()


@pytest.mark.parametrize(("loss", "guidance", "options"), CASES.values(), ids=CASES)
def test_a_student_is_nearer_to_the_target_and_as_a_proposal_unbiased(oracle, loss, guidance, options):
    """10,000 groups of 4: the mean of Ẑ is Z within 4 standard errors (false alarms 6e-5)."""
    distilled, fit = fitted(oracle, loss, guidance, **options)
    assert divergence(oracle, distilled.student) < 0.5 * divergence(oracle)
    assert fit.held_out[-1] < fit.held_out[0]
    settings = {"alpha": ALPHA, "value_steps": (), "ess_threshold": 0.0}
    result = run(oracle, fg.TDS(gradient=distilled, **settings), 4, 10_000)
    ratio = torch.exp(result.log_normalizer.groups - oracle.target(ALPHA)[1])
    assert abs(float(ratio.mean()) - 1) <= 4 * float(ratio.std()) / 100
    guidances = fg.SMC(**settings), fg.TDS(gradient=distilled, **settings)
    ess = [float(run(oracle, g, 1_000, 10).trace[-1].ess.mean()) for g in guidances]
    assert ess[1] > 1.5 * ess[0]


def test_temperature_and_bias_of_the_run_are_those_of_the_student():
    bias = torch.tensor([[0.5, -torch.inf, 0.0], [0.0, 0.0, 1.0], [0.0, -2.0, 0.0]])
    oracle = TabularMasked(temperature=0.6, bias=bias)
    distilled, _ = fitted(oracle, "guided", fg.SMC(alpha=ALPHA))
    assert divergence(oracle, distilled.student) < 0.5 * divergence(oracle)
    result = run(oracle, fg.TDS(alpha=ALPHA, gradient=distilled), 4, 10_000)
    ratio = torch.exp(result.log_normalizer.groups - oracle.target(ALPHA)[1])
    assert abs(float(ratio.mean()) - 1) <= 4 * float(ratio.std()) / 100


def test_the_student_alone_draws_what_the_proposal_draws_unweighted(oracle):
    distilled, _ = fitted(oracle, "guided", fg.SMC(alpha=ALPHA))
    drawn = run(oracle, fg.ClassifierGuidance(alpha=ALPHA, gradient=distilled), 500, 1, seed=3)
    alone = fg.sample(
        oracle.process, distilled.student, oracle.reward, fg.BestOfN(alpha=0.0), particles=500, seed=3, progress=False
    )
    assert float((drawn.samples == alone.samples).double().mean()) > 0.99  # they differ in roundings


def test_the_same_seed_fits_the_same_student(oracle):
    students = [fitted(oracle, "guided", fg.SMC(alpha=ALPHA), particles=64, epochs=2, seed=s)[0] for s in (1, 1, 2)]
    logits = [s.student.logits for s in students]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


def test_misuse_is_refused(oracle):
    with pytest.raises(TypeError, match=r"torch\.nn\.Module"):
        fg.Distill(oracle.denoiser)
    with pytest.raises(ValueError, match="loss: unknown"):
        fg.Distill(Table(oracle), loss="both")
    with pytest.raises(ValueError, match="compares the children"):
        fitted(oracle, "per_step", fg.SMC())
    with pytest.raises(ValueError, match="alpha = 0"):
        fitted(oracle, "per_step", fg.SVDD(alpha=0.0))
    with pytest.raises(TypeError, match="unknown argument steps"):
        fitted(oracle, "guided", fg.SMC(), steps=3)
