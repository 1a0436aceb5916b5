"""A guided run on real weights: what must not change its result, and what it must reach."""

from __future__ import annotations

import gzip
from importlib.resources import files
from pathlib import Path

import pytest
import torch

import fastguide as fg
from fastguide.models import ProteinMPNN
from fastguide.protein import Design, read_structure
from fastguide.rewards import PLDDT

pytestmark = pytest.mark.weights

DATA = Path(__file__).parent / "data"
SETTINGS = [
    fg.Memory(merge=False),
    fg.Memory(remember=False),
    fg.Memory(merge=False, remember=False),
    *(fg.Memory(micro_batch=m) for m in (1, 7, 64)),
    fg.Memory(limit=1, micro_batch=7),
]


@pytest.fixture(scope="module")
def ubiquitin():
    return Design.create(read_structure(str(files("fastguide") / "data" / "1UBI.pdb")))


@pytest.fixture(scope="module")
def crambin(tmp_path_factory):
    path = tmp_path_factory.mktemp("crambin") / "1EJG.pdb"
    path.write_bytes(gzip.decompress((DATA / "1EJG.pdb.gz").read_bytes()))
    return Design.create(read_structure(path))


@pytest.fixture(scope="module")
def plddt():
    return PLDDT("V7")


def run(model, reward, guidance, *, particles, steps, **options):
    process = fg.MaskedProcess(model.length, model.vocab, steps=steps, temperature=0.5)
    return fg.sample(process, model, reward, guidance, particles=particles, seed=7, progress=False, **options)


def same(a, b):
    assert torch.equal(a.samples, b.samples)
    assert torch.equal(a.rewards, b.rewards)
    assert torch.equal(a.log_weights, b.log_weights)
    assert torch.equal(a.ancestry.parents, b.ancestry.parents)


@pytest.mark.parametrize("guidance", [fg.SVDD(alpha=0.5, branch=3), fg.SMC(alpha=1.0)], ids=["svdd", "smc"])
def test_settings_that_only_change_the_cost(ubiquitin, plddt, guidance):
    model = ProteinMPNN(ubiquitin)
    base = run(model, plddt, guidance, particles=4, steps=6)
    for memory in SETTINGS:
        same(base, run(model, plddt, guidance, particles=4, steps=6, memory=memory))
    same(base, run(ProteinMPNN(ubiquitin, cache=False), plddt, guidance, particles=4, steps=6))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        same(base, run(model, plddt, guidance, particles=4, steps=6))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow(always=True)
def test_the_default_run_is_the_same_under_every_setting(ubiquitin, plddt):
    from fastguide.design import DesignSettings

    s = DesignSettings()
    model = ProteinMPNN(ubiquitin)
    process = fg.MaskedProcess(model.length, model.vocab, steps=s.steps, temperature=s.temperature)

    def default_run(**options):
        guidance = fg.SVDD(alpha=s.alpha, branch=s.branch)
        return fg.sample(process, model, plddt, guidance, particles=s.particles, seed=s.seed, progress=False, **options)

    base = default_run()
    for memory in SETTINGS:
        same(base, default_run(memory=memory))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        same(base, default_run())
    finally:
        torch.set_num_threads(threads)


def test_several_backbones_in_one_run(ubiquitin, crambin, plddt):
    model = ProteinMPNN([ubiquitin, crambin])
    guidance = fg.SVDD(alpha=0.5, branch=2)
    process = fg.MaskedProcess(model.length, model.vocab, steps=6, temperature=0.5)
    both = fg.sample(
        process,
        model,
        plddt,
        guidance,
        particles=3,
        groups=2,
        condition=[ubiquitin, crambin],
        seed=[1, 2],
        progress=False,
    )
    assert both.lengths.tolist() == [76, 46]
    assert bool((both.samples[3:, 46:] == model.vocab).all())
    assert [len(s) for s in model.sequences(both.best(3, group=1), crambin)] == [46] * len(both.best(3, group=1))

    alone = ProteinMPNN(crambin)
    process = fg.MaskedProcess(alone.length, alone.vocab, steps=6, temperature=0.5)
    single = fg.sample(process, alone, plddt, guidance, particles=3, seed=[2], progress=False)
    assert torch.equal(both.samples[3:, :46], single.samples)
    assert torch.equal(both.rewards[3:], single.rewards)


def test_replay_of_a_protein_trajectory(ubiquitin, plddt):
    model = ProteinMPNN(ubiquitin)
    result = run(model, plddt, fg.SVDD(alpha=0.5, branch=3), particles=4, steps=6)
    assert torch.equal(result.replay(2)[-1], result.samples[2])


def test_guidance_raises_the_reward(ubiquitin, plddt):
    model = ProteinMPNN(ubiquitin)
    guided = run(model, plddt, fg.SVDD(alpha=0.3, branch=8), particles=8, steps=19)
    unguided = run(model, plddt, fg.BestOfN(alpha=0.0), particles=8, steps=19)
    # The difference is about 5 with a standard error of 1.3.
    assert float(guided.rewards.mean()) > float(unguided.rewards.mean()) + 1.0
