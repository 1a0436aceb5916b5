"""SVDD's samplers of DNA on an oracle of 3 positions and 4 bases, against exact laws and against theirs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import fastguide as fg
from fastguide.adapters import svdd as ours
from tests.adapters.peers_masked import TheirDiffusion
from tests.oracle.masked import TabularMasked, noise_floor, total_variation

STEPS = 4
ORACLE = TabularMasked(length=3, vocab=4, steps=STEPS)
ROWS = 2_000
"""Rows of a law; the noise floor of 64 frequencies is 0.06."""
WEIGHT = torch.randn(3, 5, 3, 4, generator=torch.Generator().manual_seed(3))


def network(x: Tensor) -> Tensor:
    return ORACLE.logits_of[ORACLE.row(x)].float()


def soft_network(x: Tensor) -> Tensor:
    return torch.einsum("nla,lamb->nmb", x if x.is_floating_point() else F.one_hot(x, 5).float(), WEIGHT)


def reward(rows: Tensor) -> Tensor:
    """Multilinear in one-hot sequences [n, 4, L]: three numbers, the first of which counts."""
    found = torch.einsum("na,nb,nc,abc->n", *rows.unbind(2), ORACLE.rewards.float())
    return torch.stack([found, -found, found], 1)[..., None]


def state_value(rows: Tensor) -> Tensor:
    """Of one-hot sequences [n, L, 4], zeros where masked."""
    assert rows.shape[1:] == (3, 4)
    return (rows * torch.tensor([0.0, 0.5, 1.0, 2.0])).sum((1, 2))[:, None, None]


def diffusion(compat: bool | None = None, net=network, rows: int = ROWS) -> TheirDiffusion:
    theirs = TheirDiffusion(net, length=3, steps=STEPS, batch=rows)
    return theirs if compat is None else ours.install(theirs, compat=compat)


def law(tokens: Tensor) -> Tensor:
    assert tokens.dtype == torch.int64
    return ORACLE.frequencies(tokens, torch.zeros(len(tokens), dtype=torch.float64))


def close(a: Tensor, b: Tensor, factor: float = 2.0, rows: int = ROWS) -> bool:
    return total_variation(a, b) < factor * noise_floor(b, rows)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    np.random.seed(0)


CALLS = {
    "controlled_sample": lambda m, **o: m.controlled_sample(lambda x: x, state_value, sample_M=3, **o),
    "tweedie": lambda m, **o: m.controlled_sample_tweedie(reward_2d, sample_M=3, options="True", **o),
    "heuristic": lambda m, **o: m.controlled_sample_tweedie(reward_2d, sample_M=3, options="False", **o),
    "TDS": lambda m, **o: m.controlled_sample_TDS(reward, 1.0, **o),
}


def reward_2d(rows: Tensor) -> Tensor:
    return reward(rows)[:, :1]


class TestRight:
    @pytest.mark.parametrize("alpha", [0.0, pytest.param(0.7, marks=pytest.mark.slow)])
    def test_tweedie(self, alpha):
        tokens = diffusion(False).controlled_sample_tweedie(reward_2d, sample_M=4, alpha=alpha)
        assert close(law(tokens), ORACLE.svdd_law(ORACLE.posterior_means(), 4, alpha))

    def test_controlled_sample(self):
        values = state_value(F.one_hot(ORACLE.states, 5)[..., :4].float()).flatten().double()
        tokens = diffusion(False).controlled_sample(lambda x: x, state_value, sample_M=4)
        assert close(law(tokens), ORACLE.svdd_law([values] * (STEPS + 1), 4, 0.0))

    @pytest.mark.parametrize("gradient", ["decoded", None])
    def test_tds(self, gradient):
        tokens = diffusion(False).controlled_sample_TDS(reward, 1.0, gradient=gradient)
        assert close(law(tokens), ORACLE.target(1.0)[0], 3.0)

    def test_tds_through_the_network(self):
        """One position revealed at a time would be exact; here the weights mend what several cost."""
        model = diffusion(False, soft_network)
        oracle = fg.MaskedProcess(3, 4, STEPS)
        tokens = model.controlled_sample_TDS(reward, 1.0, gradient="input")
        plain = fg.sample(
            oracle, lambda x, t: soft_network(x), ORACLE.reward, fg.SMC(alpha=1.0), particles=ROWS, progress=False
        )
        assert close(law(tokens), law(plain.draw(ROWS)), 4.0)

    def test_dps_does_not_depend_on_the_batch(self):
        whole = diffusion(False, soft_network).controlled_sample_DPS(reward_2d, 1.5)
        few = [diffusion(False, soft_network, 500).controlled_sample_DPS(reward_2d, 1.5) for _ in range(4)]
        assert close(law(whole), law(torch.cat(few)), 3.0)

    def test_dps_raises_the_reward(self):
        means = [
            float(ORACLE.reward(diffusion(False).controlled_sample_DPS(reward_2d, scale, gradient="decoded")).mean())
            for scale in (0.0, 1.0)
        ]
        assert means[1] > means[0] + 0.2

    def test_a_true_option_is_true(self):
        model = diffusion(False)
        torch.manual_seed(1)
        tokens = model.controlled_sample_tweedie(reward_2d, sample_M=3, eval_sp_size=50)
        torch.manual_seed(1)
        assert torch.equal(
            tokens, model.controlled_sample_tweedie(reward_2d, sample_M=3, eval_sp_size=50, options="True")
        )
        torch.manual_seed(1)
        assert not torch.equal(
            tokens, model.controlled_sample_tweedie(reward_2d, sample_M=3, eval_sp_size=50, options="False")
        )


class TestCompat:
    @pytest.mark.parametrize("eps", [pytest.param(1e-5, marks=pytest.mark.slow), 0.1])
    @pytest.mark.parametrize("name", CALLS)
    def test_laws_are_theirs(self, name, eps):
        """Three noise floors of two samples, as sequences of TDS compete; with eps = 0.1 their last step leaves masks."""
        theirs, got = (law(CALLS[name](diffusion(compat), eps=eps)) for compat in (None, True))
        assert total_variation(theirs, got) < 3 * noise_floor(theirs, ROWS // 2)

    def test_dps(self):
        theirs, got = (
            law(diffusion(compat, soft_network).controlled_sample_DPS(reward_2d, 8.0 * ROWS)) for compat in (None, True)
        )
        assert total_variation(theirs, got) < 3 * noise_floor(theirs, ROWS // 2)
        mild = law(diffusion(True, soft_network).controlled_sample_DPS(reward_2d, 8.0))
        assert total_variation(mild, got) > 0.1  # their scale falls with the batch

    def test_a_true_option_is_false(self):
        theirs = law(diffusion().controlled_sample_tweedie(reward_2d, sample_M=3))
        got = law(diffusion(True).controlled_sample_tweedie(reward_2d, sample_M=3))
        assert total_variation(theirs, got) < 3 * noise_floor(theirs, ROWS // 2)
        assert total_variation(got, law(diffusion(False).controlled_sample_tweedie(reward_2d, sample_M=3))) > 0.1


class TestCost:
    @pytest.mark.parametrize(
        ("name", "networks", "rewards"),
        [("controlled_sample", 1, 3), ("tweedie", 4, 3), ("heuristic", 1, 3), ("TDS", 3, 2)],
    )
    @pytest.mark.parametrize("compat", [None, False, True])
    def test_calls(self, name, networks, rewards, compat):
        """Theirs as documented, and one more of the network to take out masks; ours fewer, of as many rows each."""
        model = diffusion(compat, rows=8)
        CALLS[name](model)
        if compat is None:
            assert model.calls == {"model": networks * STEPS + 1, "reward": rewards * STEPS}
        else:
            assert model.calls["model"] <= max(networks, 3) * STEPS - 1

    def test_a_learned_value_asks_the_network_of_survivors_only(self):
        asked = []

        def watched(x):
            asked.append(len(x))
            return network(x)

        diffusion(False, watched, rows=8).controlled_sample(lambda x: x, state_value, sample_M=10)
        assert asked == [8] * STEPS


def test_saluki_sequences_are_made_by_the_model():
    model = diffusion(False, rows=20)
    seen = []
    model.transform_samples_saluki = lambda rows: (seen.append(rows.shape), F.pad(rows, (0, 2)))[1]
    tokens = model.controlled_sample_tweedie(
        lambda rows: reward(rows[..., :4].transpose(1, 2))[:, :1], sample_M=3, options="True", task="rna_saluki"
    )
    torch.manual_seed(0)
    assert torch.equal(tokens, model.controlled_sample_tweedie(reward_2d, sample_M=3))
    assert seen
    assert all(shape[1:] == (3, 4) for shape in seen)


def test_the_model_says_how_long_and_how_many():
    model = diffusion(False, rows=6)
    assert model.controlled_sample(lambda x: x, state_value, num_steps=7).shape == (6, 3)
    assert model.controlled_sample(lambda x: x, state_value, eval_sp_size=9).shape == (9, 3)


def test_reruns_agree_and_calls_differ():
    for call in CALLS.values():
        model = diffusion(False, rows=40)
        torch.manual_seed(1)
        first, second = call(model), call(model)
        torch.manual_seed(1)
        assert torch.equal(call(model), first)
        assert not torch.equal(first, second)


def test_refusals():
    model = diffusion(False, rows=4)
    with pytest.raises(ValueError, match="alpha: 0 leaves no weights"):
        model.controlled_sample_TDS(reward, 0.0)
    with pytest.raises(TypeError, match="no gradient flows"):
        model.controlled_sample_TDS(lambda rows: reward(rows).detach(), 1.0)
    with pytest.raises(fg.RewardError, match="returned nan"):
        model.controlled_sample_tweedie(lambda rows: reward_2d(rows) * torch.nan)
    model.parameterization = "sedd"
    with pytest.raises(NotImplementedError, match="parameterization"):
        model.controlled_sample_TDS(reward, 1.0)
