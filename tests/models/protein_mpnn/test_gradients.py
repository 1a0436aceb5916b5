"""Guidance by the gradient of predicted pLDDT."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

import fastguide as fg
from fastguide.guidance.gradients import tokens
from fastguide.models import ProteinMPNN
from fastguide.rewards import PLDDT

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def tied(dimer, design):
    """Two tied pairs, two single residues; all else is fixed."""
    return design(dimer, [(0, 46), (5, 51), (1,), (60,)])


def test_soft_states_are_decoded_as_tokens_are(tied):
    model = ProteinMPNN(tied)
    x = torch.tensor([[18, 0, 3, 4], [19, 7, 1, 1]])
    soft = model.decode_soft(F.one_hot(x, 20).float())
    assert torch.equal(soft, F.one_hot(model.decode(x), 20).float())


def test_the_gradient_of_a_tied_variable_is_the_sum_of_its_residues(tied):
    model = ProteinMPNN(tied)
    x = torch.full((1, 4, 20), 0.05, requires_grad=True)
    soft = model.decode_soft(x)
    weight = torch.randn(soft.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((soft * weight).sum(), x)
    torch.testing.assert_close(gradient[0, 0], weight[0, 0] + weight[0, 46])
    torch.testing.assert_close(gradient[0, 3], weight[0, 60])


@pytest.mark.parametrize("estimate", [tokens.decoded, tokens.exact])
def test_every_open_position_is_guided_by_plddt(crambin, design, estimate):
    process = fg.MaskedProcess(length=6, vocab=20, steps=3)
    model = ProteinMPNN(design(crambin, [(i,) for i in (3, 10, 20, 21, 30, 40)]))
    seen = []

    def recorded(states):
        seen.append((states.x == 20, estimate(states)))
        return seen[-1][1]

    result = fg.sample(
        process, model, PLDDT(), fg.TDS(alpha=0.5, gradient=recorded), particles=8, groups=2, progress=False
    )
    for opened, delta in seen:
        assert bool((delta[opened].abs().amax(1) > 0).all())
        assert not delta[~opened].any()
    assert bool(torch.isfinite(result.log_weights).all())


def test_it_raises_plddt(crambin, design):
    process = fg.MaskedProcess(length=46, vocab=20, steps=8)
    model, plddt = ProteinMPNN(design(crambin)), PLDDT()
    means = [
        float(fg.sample(process, model, plddt, g, particles=32, progress=False).rewards.mean())
        for g in (fg.BestOfN(alpha=0.0), fg.ClassifierGuidance(alpha=0.2))
    ]
    assert means[1] > means[0] + 1.0


def test_the_network_takes_no_soft_tokens(crambin, design):
    process = fg.MaskedProcess(length=46, vocab=20, steps=8)
    reward = fg.values.compiled.PositionWeightMatrix(torch.zeros(46, 20))
    with pytest.raises(TypeError, match="ProteinMPNN is not differentiable"):
        fg.sample(process, ProteinMPNN(design(crambin)), reward, fg.TDS(gradient="input"), particles=2, progress=False)
