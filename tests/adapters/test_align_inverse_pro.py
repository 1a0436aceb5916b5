"""AlignInversePro's samplers on an oracle of 3 positions and 3 amino acids, against exact laws and against theirs."""

# ruff: noqa: N803, N806 - the names are theirs

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import fastguide as fg
from fastguide.adapters import align_inverse_pro as ours
from tests.adapters.peers_masked import TheirInterpolant
from tests.oracle.masked import TabularMasked, noise_floor, total_variation

STEPS, MASK = 4, 21
ORACLE = TabularMasked(length=3, vocab=3, steps=STEPS)
ROWS = 2_000
"""Rows of a law; the noise floor of 27 frequencies is 0.045."""


def interpolant(compat: bool | None = None) -> TheirInterpolant:
    """Theirs; ours in its place unless ``compat`` is None."""
    theirs = TheirInterpolant(num_timesteps=STEPS + 1, temp=1.0)
    return theirs if compat is None else ours.install(theirs, compat=compat)


def backbone(rows: int = ROWS) -> tuple[Tensor, ...]:
    return torch.zeros(rows, 3, 4, 3), *(torch.ones(rows, 3) for _ in range(4))


def wide(logits: Tensor) -> Tensor:
    """Their 22 columns."""
    return F.pad(logits, (0, 19), value=-1e4)


def model(X: Tensor, tokens: Tensor, *rest: Tensor) -> Tensor:
    return wide(ORACLE.logits_of[ORACLE.row(tokens.clamp(max=3))].float())


def reward(X: Tensor, one_hot: Tensor, *rest: Tensor) -> Tensor:
    assert one_hot.shape[2] == 22
    return ORACLE.reward(one_hot.argmax(-1)).float()


def law(tokens: Tensor) -> Tensor:
    assert tokens.dtype == torch.int64
    return ORACLE.frequencies(tokens, torch.zeros(len(tokens), dtype=torch.float64))


def close(a: Tensor, b: Tensor, factor: float = 2.0) -> bool:
    """Whether frequencies of ROWS draws are those of a law: the distance of honest ones passes 1.5 floors once in 10⁶."""
    return total_variation(a, b) < factor * noise_floor(b, ROWS)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)
    np.random.seed(0)


class TestRight:
    def test_sample(self):
        tokens, states, clean = interpolant(False).sample(model, *backbone())
        assert close(law(tokens), ORACLE.law())
        assert torch.equal(states[-1], tokens)
        assert (states[0] == MASK).all()
        assert len(states) == len(clean) + 1 == STEPS + 1
        for before, after, guess in zip(states[:-1], states[1:], clean, strict=True):
            assert ((before == after) | (before == MASK)).all()
            assert ((before == guess) | (before == MASK)).all()
            assert (guess < 3).all()

    @pytest.mark.parametrize("alpha", [pytest.param(0.5, marks=pytest.mark.slow), 1.0])
    def test_smc(self, alpha):
        # Resampling among the rows adds to the variance: twice the floor and half again.
        tokens, states, _ = interpolant(False).sample_controlled_SMC(
            model, *backbone(), reward, "stability", alpha=alpha, repeats=5
        )
        assert close(law(tokens), ORACLE.target(alpha)[0], 3.0)
        assert torch.equal(states[-1], tokens)

    @pytest.mark.parametrize("alpha", [0.0, 0.7])
    def test_svdd(self, alpha):
        tokens, _, _ = interpolant(False).sample_controlled_SVDD(
            model, *backbone(), reward, "stability", repeats=4, alpha=alpha
        )
        assert close(law(tokens), ORACLE.svdd_law(ORACLE.posterior_means(), 4, alpha))

    def test_svdd_with_one_child_is_unguided(self):
        tokens, _, _ = interpolant(False).sample_controlled_SVDD(model, *backbone(), reward, "stability", repeats=1)
        assert close(law(tokens), ORACLE.law())

    def test_nested_is(self):
        tokens, _, _ = interpolant(False).sample_controlled_NestedIS(
            model, *backbone(), reward, "stability", repeats=3, alpha=1.0
        )
        assert close(law(tokens), ORACLE.target(1.0)[0], 3.0)

    def test_dps_does_not_depend_on_the_batch(self):
        laws = []
        for rows in (ROWS, ROWS // 2):
            parts = [
                interpolant(False).sample_controlled_DPS(soft_model, *backbone(rows), 1.5, soft_reward)[0]
                for _ in range(ROWS // rows)
            ]
            laws.append(law(torch.cat(parts)))
        assert close(*laws, 3.0)

    def test_dps_is_classifier_guidance(self):
        tokens = interpolant(False).sample_controlled_DPS(soft_model, *backbone(500), 1.5, soft_reward)[0]
        torch.manual_seed(0)
        seed = int(torch.randint(2**63 - 1, (), dtype=torch.int64))
        denoiser = fg.models.wrap(lambda x, t: soft_model(None, x)[..., :MASK], differentiable=True)
        result = fg.sample(
            fg.MaskedProcess(3, MASK, STEPS), denoiser, fg.rewards.wrap(flat_reward, differentiable=True),
            fg.ClassifierGuidance(alpha=1 / 1.5, gradient="input"), particles=500, seed=seed, memory=fg.Memory(ragged=True),
            progress=False,
        )  # fmt: skip
        assert (tokens == result.samples).double().mean() > 0.999  # the last bits of a gradient may differ


WEIGHT = torch.randn(22, 3, 22, 3, generator=torch.Generator().manual_seed(3))


def soft_model(X: Tensor | None, tokens: Tensor, *rest: Tensor) -> Tensor:
    """A network that reads tokens or weights of them."""
    x = tokens if tokens.is_floating_point() else F.one_hot(tokens, 22).float()
    logits = torch.einsum("nla,albm->nmb", x, WEIGHT)
    return torch.log_softmax(torch.cat([logits[..., :3], logits[..., 3:] - 30.0], -1), -1)


def soft_reward(X: Tensor | None, weights: Tensor, *rest: Tensor) -> Tensor:
    table = ORACLE.rewards.float()
    return torch.einsum("na,nb,nc,abc->n", *(weights[:, i, :3] for i in range(3)), table)


def flat_reward(x0: Tensor) -> Tensor:
    return soft_reward(None, x0 if x0.is_floating_point() else F.one_hot(x0, 22).float())


CALLS = {
    "sample": lambda i, b: i.sample(model, *b),
    "SMC": lambda i, b: i.sample_controlled_SMC(model, *b, reward, "stability", alpha=1.0),
    "SVDD": lambda i, b: i.sample_controlled_SVDD(model, *b, reward, "stability", repeats=3),
    "NestedIS": lambda i, b: i.sample_controlled_NestedIS(model, *b, reward, "stability", repeats=3),
    "DPS": lambda i, b: i.sample_controlled_DPS(soft_model, *b, 2.0 * len(b[0]), soft_reward),
}


class TestCompat:
    """Ours with ``compat=True`` and theirs: three noise floors of two samples, as rows compete."""

    @pytest.mark.parametrize("name", CALLS)
    def test_laws_are_theirs(self, name):
        call, floor = CALLS[name], noise_floor(ORACLE.law(), ROWS // 2)
        theirs, got = call(interpolant(), backbone()), call(interpolant(True), backbone())
        assert total_variation(law(got[0]), law(theirs[0])) < 3 * floor
        for k in range(STEPS):
            ours_states, their_states = got[1][k], theirs[1][k]
            a, b = (
                torch.bincount(ORACLE.row(x.clamp(max=3)), minlength=64) / ROWS for x in (ours_states, their_states)
            )
            assert total_variation(a, b) < 3 * floor
            assert total_variation(law(got[2][k]), law(theirs[2][k])) < 3 * floor

    @pytest.mark.parametrize("name", ["sample", "SMC", "SVDD", "NestedIS"])
    def test_the_default_is_another_law(self, name):
        call = CALLS[name]
        assert (
            total_variation(law(call(interpolant(), backbone())[0]), law(call(interpolant(False), backbone())[0])) > 0.1
        )


class TestCost:
    """Calls of network and reward per step, theirs as they are documented and ours."""

    @pytest.mark.parametrize(
        ("name", "networks", "rewards"), [("sample", 1, 0), ("SMC", 3, 4), ("SVDD", 4, 3), ("NestedIS", 4, 3)]
    )
    def test_theirs(self, name, networks, rewards):
        theirs = interpolant()
        CALLS[name](theirs, backbone(5))
        assert theirs.calls == {k: v * STEPS for k, v in (("model", networks), ("reward", rewards)) if v}

    @pytest.mark.parametrize("compat", [False, True])
    def test_ours_asks_of_distinct_rows(self, compat):
        """5 children of 8 rows: theirs asks of 48 states a step; ours of the distinct ones, in calls of 8 rows."""
        asked: dict[str, list[Tensor]] = {"model": [], "reward": []}

        def watched_model(X, tokens, *rest):
            asked["model"].append(tokens)
            return model(X, tokens)

        def watched_reward(X, one_hot, *rest):
            asked["reward"].append(one_hot.argmax(-1))
            return reward(X, one_hot)

        interpolant(compat).sample_controlled_SVDD(watched_model, *backbone(8), watched_reward, "stability", repeats=5)
        assert {len(tokens) for calls in asked.values() for tokens in calls} == {8}
        assert len(asked["model"]) < 0.75 * 6 * STEPS
        if not compat:
            scored = [tokens.unique(dim=0) for tokens in asked["reward"]]
            assert len(torch.cat(scored).unique(dim=0)) == sum(map(len, scored))


def test_rows_may_have_backbones_of_their_own():
    """Row i forbids token X[i]; nothing is shared between rows."""

    def picky(X, tokens, *rest):
        return model(X, tokens) - 1e4 * F.one_hot(X[:, 0, 0, 0].long(), 22)[:, None]

    def score(X, one_hot, *rest):
        assert (one_hot.argmax(-1) != X[:, 0, 0, 0].long()[:, None]).all()
        return reward(X, one_hot)

    X, *rest = backbone(60)
    X[:, :, :, :] = torch.arange(60)[:, None, None, None] % 3
    for compat in (False, True):
        for tokens in (
            interpolant(compat).sample(picky, X, *rest)[1][-1],
            interpolant(compat).sample_controlled_SVDD(picky, X, *rest, score, "stability")[1][-1],
        ):
            assert (tokens != X[:, 0, 0, :1].long()).all()
            assert len(tokens.unique()) == 3
        with pytest.raises(ValueError, match="X: rows have different backbones"):
            interpolant(compat).sample_controlled_SMC(picky, X, *rest, score, "stability")


@pytest.mark.parametrize(
    ("name", "method"),
    [("LDDT", "cal_reward"), ("scRMSD", "cal_rmsd_reward"), ("stability_rosetta", "calculate_energy")],
)
def test_rewards_by_name(name, method):
    sign = 1 if name == "LDDT" else -1

    def score(tokens):
        values = sign * ORACLE.reward(tokens)
        return values if name == "LDDT" else values.tolist()

    i, b = interpolant(False), backbone(100)
    named = i.sample_controlled_SVDD(model, *b, SimpleNamespace(**{method: score}), name, repeats=3)[0]
    torch.manual_seed(0)
    assert torch.equal(named, i.sample_controlled_SVDD(model, *b, reward, "stability", repeats=3)[0])


def test_reruns_agree_and_calls_differ():
    i, b = interpolant(False), backbone(50)
    for call in CALLS.values():
        torch.manual_seed(1)
        first, second = call(i, b)[0], call(i, b)[0]
        torch.manual_seed(1)
        assert torch.equal(call(i, b)[0], first)
        assert not torch.equal(first, second)


def test_refusals():
    i, b = interpolant(False), backbone(4)
    with pytest.raises(ValueError, match="reward_name: unknown 'plddt'; choose stability"):
        i.sample_controlled_SVDD(model, *b, reward, "plddt")
    with pytest.raises(ValueError, match="alpha: 0 leaves no weights"):
        i.sample_controlled_SMC(model, *b, reward, "stability", alpha=0)
    with pytest.raises(ValueError, match=r"model: expected log-probabilities \[4, 3, 22\], got shape \[4, 3, 21\]"):
        i.sample(lambda X, tokens, *rest: model(X, tokens)[..., :21], *b)
    with pytest.raises(fg.RewardError, match="returned nan"):
        i.sample_controlled_SVDD(model, *b, lambda X, x, *rest: torch.full((len(x),), torch.nan), "stability")
    i._cfg.do_purity = True
    with pytest.raises(NotImplementedError, match="do_purity"):
        i.sample(model, *b)
