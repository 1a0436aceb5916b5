from __future__ import annotations

import json
import math
from dataclasses import fields

import pytest
import torch

import fastguide as fg

LETTERS = "ACGT"


def logits(x, t):
    row = torch.arange(4.0) / 4
    return row.expand(*x.shape, 4)


def threes(x0):
    return (x0 == 3).sum(1).double()


def run(guidance=None, groups=3, reward=threes, **options):
    process = fg.MaskedProcess(length=5, vocab=4, steps=4)
    return fg.sample(
        process, logits, reward, guidance or fg.SMC(alpha=0.7), particles=16, groups=groups, progress=False, **options
    )


@pytest.fixture(scope="module")
def result():
    def decode(x0):
        return ["".join(LETTERS[i] for i in row) for row in x0.tolist()]

    return run(reward=lambda texts: [float(text.count("T")) for text in texts], decode=decode)


class TestReweight:
    def test_to_the_own_temperature_changes_nothing(self, result):
        same = result.reweight(0.7)
        torch.testing.assert_close(same.log_weights, result.log_weights, rtol=0, atol=1e-12)
        assert float(same.log_normalizer) == pytest.approx(float(result.log_normalizer))

    def test_to_the_pretrained_model(self):
        result = run(fg.SMC(alpha=0.6, ess_threshold=1.0), groups=400)
        base = result.reweight(math.inf)
        # E_p[exp(0)] = 1, and tokens 3 have their pretrained probability. 4 standard errors over 400 groups: one
        # failure in 16,000 seeds.
        assert abs(math.exp(base.log_normalizer) - 1.0) < 4 * base.log_normalizer.standard_error
        threes = torch.softmax(torch.arange(4.0) / 4, 0)[3] * 5
        weights = base.log_weights.exp().view(400, 16)
        per_group = (weights * base.rewards.view(400, 16)).mean(1)
        assert abs(float(per_group.mean() - threes)) < 4 * float(per_group.std()) / 20
        assert base.alpha == math.inf
        assert result.alpha == 0.6

    def test_agrees_with_a_run_at_that_temperature(self):
        there, here = run(fg.BestOfN(alpha=0.5), groups=200), run(fg.BestOfN(alpha=1.0), groups=200)
        assert torch.equal(there.samples, here.samples)
        torch.testing.assert_close(here.reweight(0.5).log_weights, there.log_weights, rtol=0, atol=1e-9)

    def test_needs_weights(self, result):
        with pytest.raises(ValueError, match="SVDD gives no weights"):
            run(fg.SVDD(alpha=0.5)).reweight(1.0)
        with pytest.raises(ValueError, match="alpha: expected a positive number"):
            result.reweight(0.0)


def test_effective_samples(result):
    logs = result.log_weights.view(3, -1)
    weights = torch.softmax(logs, 1)
    torch.testing.assert_close(result.effective_samples(), 1 / (weights**2).sum(1))


def test_agreement_of_replicates(result):
    z = result.log_normalizer.groups.exp()
    assert result.log_normalizer.agreement == pytest.approx(float(z.sum() ** 2 / (3 * (z**2).sum())))
    assert math.isnan(run(groups=1).log_normalizer.agreement)


def test_diversity(result):
    found = result.diversity()
    assert found.samples == 48
    assert found.distinct == len(torch.unique(result.samples, dim=0))
    assert 0 < found.pairwise_distance < 5
    assert result.diversity(group=1).samples == 16
    assert result.diversity(group=1).unique_ancestors == len(torch.unique(result.ancestry.roots[1]))


def test_pareto_front_of_rewards_and_of_their_values(result):
    def first(texts):
        return torch.tensor([t.count("A") for t in texts])

    def second(texts):
        return [t.count("T") for t in texts]

    index, values = result.pareto([first, second])
    assert len(index) == len(values) > 1
    samples = result.samples[index]
    assert len(torch.unique(samples, dim=0)) == len(index)
    assert values.tolist() == [[float((s == 0).sum()), float((s == 3).sum())] for s in samples]
    everything = torch.stack([(result.samples == a).sum(1) for a in (0, 3)], 1)
    assert torch.equal(result.pareto(everything)[0], index)
    with pytest.raises(ValueError, match=r"objectives: expected shape \[48, K\]"):
        result.pareto(everything[:3])


def test_a_manifest_is_plain_data(result):
    manifest = result.manifest()
    assert json.loads(json.dumps(manifest)) == manifest
    assert manifest["guidance"] == {
        "class": "SMC", "alpha": 0.7, "ess_threshold": 0.5, "rule": "systematic", "potential": "difference",
        "value_steps": None, "alphas": [], "target_ess": None,
    }  # fmt: skip
    assert manifest["seeds"] == result.seeds.tolist()
    assert set(manifest["versions"]) == {"fastguide", "torch", "python"}


def test_saved_and_loaded(result, tmp_path):
    path = result.save(tmp_path / "run.pt")
    copy = fg.load(path)
    for field in fields(result):
        if field.name in ("decode", "_replay", "trace", "ancestry", "log_normalizer"):
            continue
        ours, theirs = getattr(result, field.name), getattr(copy, field.name)
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs, field.name
    assert copy.guidance == result.guidance
    assert torch.equal(copy.trace.ess, result.trace.ess)
    assert torch.equal(copy.ancestry.roots, result.ancestry.roots)
    assert repr(copy.log_normalizer) == repr(result.log_normalizer)
    assert torch.equal(copy.draw(7), result.draw(7))
    with pytest.raises(RuntimeError, match="replay"):
        copy.replay(0)


@pytest.mark.parametrize(
    "guidance",
    [
        fg.SMC(value_steps=range(1, 4), alphas=[4.0, 2.0]),
        fg.SMC(potential="max", target_ess=0.5),
        fg.SVDD(branch=3, alpha=0.0),
        fg.NestedSMC(branch=2),
        fg.Beam(branch=2),
        fg.BestOfN(),
    ],
)
def test_guidance_survives_a_file(guidance, tmp_path):
    assert fg.load(run(guidance).save(tmp_path / "run.pt")).guidance == guidance


def test_other_files_are_refused(tmp_path):
    torch.save({"format": -1}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt is not a result"):
        fg.load(tmp_path / "other.pt")


def test_data_frames(result):
    pandas = pytest.importorskip("pandas")
    frame = result.to_dataframe()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.columns) == ["group", "particle", "log_weight", "weight", "reward", "sample"]
    assert len(frame) == 48
    assert frame["weight"].sum() == pytest.approx(1.0)
    assert all(sample.count("T") == value for sample, value in zip(frame["sample"], frame["reward"], strict=True))
    steps = result.trace.to_dataframe()
    assert len(steps) == 4 * 3
    assert set(steps["group"]) == {0, 1, 2}


def test_arviz_data(result):
    pytest.importorskip("arviz")
    data = result.to_arviz()
    assert data.posterior["x0"].shape == (3, 16, 5)
    assert data.sample_stats["reward"].shape == (3, 16)
    counts = (data.posterior["x0"].values == 3).sum(-1)
    assert (counts == data.sample_stats["reward"].values).all()
