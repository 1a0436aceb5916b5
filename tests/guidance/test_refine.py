"""Refinement: Metropolis rounds leave the target invariant where they can, elites never lose, given parts stay."""

from __future__ import annotations

import pytest
import torch

import fastguide as fg
from tests.oracle.masked import DTYPE, TabularMasked, total_variation

ORDERED = {"reveal": "count"}


def run(oracle, guidance, **options):
    denoiser = fg.models.wrap(lambda x, t: oracle.denoiser(x, t), batch_invariant=True)
    reward = fg.rewards.wrap(oracle.reward, batch_invariant=True)
    return fg.sample(oracle.process, denoiser, reward, guidance, progress=False, **options)


class Exact:
    """The exact soft values."""

    reads_output = False

    def __init__(self, oracle, alpha):
        self.oracle, self.tables = oracle, oracle.soft_values(alpha)

    def look(self, states):
        return self.tables[states.step][self.oracle.row(states.x)]

    def values(self, looked, rewards, alpha):
        return looked


def proposal_kernel(oracle, first):
    """``[V^L, V^L]`` exact: a clean sample noised to the level after ``first`` steps, and drawn back by the process as run."""
    rows, keep = [], oracle.process.share_kept(first)
    subsets = torch.cartesian_prod(*[torch.tensor([True, False])] * oracle.length)
    kept = subsets.sum(1)
    share = keep**kept * (1 - keep) ** (oracle.length - kept)
    if oracle.process.reveal == "count":
        share = (kept == round(keep * oracle.length)).to(DTYPE)
        share = share / share.sum()
    for x0 in oracle.states[oracle.clean]:
        noised = oracle.row(torch.where(subsets, x0, oracle.mask))
        law = torch.zeros(len(oracle.states), dtype=DTYPE).index_add(0, noised, share.to(DTYPE))
        for step in range(first, oracle.steps):
            law = oracle.push(law, step)
        rows.append(law[oracle.clean])
    return torch.stack(rows)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_noise_and_the_way_back_are_reversible_one_position_a_step(first):
    oracle = TabularMasked(steps=3, options=ORDERED)
    flow = oracle.law()[:, None] * proposal_kernel(oracle, first)
    torch.testing.assert_close(flow, flow.T, atol=1e-8, rtol=0)


def test_they_are_not_where_positions_are_drawn_at_once_and_nearly_so_in_many_steps():
    gaps = []
    for steps in (2, 8, 32):
        oracle = TabularMasked(steps=steps)
        flow = oracle.law()[:, None] * proposal_kernel(oracle, steps // 2)
        gaps.append(float((flow - flow.T).abs().sum()))
    assert gaps[0] > 3 * gaps[1] > 6 * gaps[2]
    assert gaps[0] > 1e-2


@pytest.mark.parametrize("first", [1, 2])
def test_samples_are_noised_by_the_law_of_the_process(first):
    """A share of 20,000 samples at each state: standard error below 0.0036."""
    for options in ({}, ORDERED):
        oracle = TabularMasked(steps=3, options=options)
        seeds = torch.tensor([5])
        bound = oracle.process.bind(
            fg.processes.Constraints(), groups=1, particles=20_000, seeds=seeds, device=torch.device("cpu")
        )
        x = bound.renoise(torch.tensor([[0, 1, 2]]).expand(20_000, -1), step=first, seeds=seeds)
        kept = x != oracle.mask
        assert bool((torch.where(kept, x, torch.tensor([0, 1, 2])) == torch.tensor([0, 1, 2])).all())
        torch.testing.assert_close(kept.double().mean(0), torch.full((3,), first / 3, dtype=DTYPE), atol=0.015, rtol=0)
        if options:
            assert bool((kept.sum(1) == first).all())


def test_metropolis_goes_to_the_target_from_the_same_design():
    """8,000 chains of 40 rounds from one design: seen 0.012 to 0.024 at 20 seeds, exact draws 0.018; alpha 1.3 times 0.09."""
    oracle = TabularMasked(steps=3, options=ORDERED)
    guidance = fg.Refine(fg.BestOfN(alpha=0.7), rounds=40, level=0.67, accept="metropolis")
    result = run(oracle, guidance, particles=8_000, x_init=torch.tensor([0, 0, 0]))
    target, _ = oracle.target(0.7)
    assert total_variation(oracle.frequencies(result.samples, result.log_weights), target) < 0.035
    assert total_variation(oracle.law(), target) > 0.1


def test_metropolis_leaves_the_target_invariant():
    """20,000 exact draws, 3 rounds: seen 0.007 to 0.013 at 20 seeds, exact draws 0.010; alpha 1.3 times 0.036."""
    oracle = TabularMasked(steps=3, options=ORDERED)
    target, _ = oracle.target(0.5)
    drawn = torch.multinomial(target, 20_000, replacement=True, generator=torch.Generator().manual_seed(1))
    guidance = fg.Refine(fg.BestOfN(alpha=0.5), rounds=3, level=0.34, accept="metropolis")
    result = run(oracle, guidance, particles=20_000, x_init=oracle.states[oracle.clean][drawn])
    assert not torch.equal(result.samples, oracle.states[oracle.clean][drawn])
    assert total_variation(oracle.frequencies(result.samples, result.log_weights), target) < 0.025


def test_elites_never_lose_and_rounds_of_guidance_improve():
    oracle = TabularMasked(length=4, steps=6)
    design = torch.tensor([0, 1, 2, 0])
    start = float(oracle.reward(design[None])[0])
    elites = run(oracle, fg.Refine(rounds=6, accept="elites"), particles=8, x_init=design)
    assert float(elites.rewards.min()) >= start
    assert float(elites.rewards.mean()) > start
    base = run(oracle, fg.BestOfN(), particles=200)
    refined = run(oracle, fg.Refine(fg.SVDD(alpha=0.3, branch=4), rounds=4), particles=200)
    assert float(refined.rewards.mean()) > float(base.rewards.mean())
    torch.testing.assert_close(refined.rewards, oracle.reward(refined.samples))


def test_rounds_of_smc_keep_the_target_that_they_started_from():
    """Exact values, 8,000 particles: seen 0.016 to 0.033 at 20 seeds; weighing the noised particles anew 0.076."""
    oracle = TabularMasked(steps=3, options=ORDERED)
    guidance = fg.Refine(fg.SMC(alpha=1.0), rounds=5, level=0.67)
    result = run(oracle, guidance, particles=8_000, value=Exact(oracle, 1.0))
    target, _ = oracle.target(1.0)
    assert total_variation(oracle.frequencies(result.samples, result.log_weights), target) < 0.05


@pytest.mark.parametrize("accept", ["always", "metropolis", "elites"])
def test_given_tokens_stay_and_a_group_alone_is_the_same(accept):
    oracle = TabularMasked(length=4, steps=5)
    guidance = fg.Refine(rounds=3, level=0.6, accept=accept)
    for options in (
        {"x_init": torch.tensor([oracle.mask, 1, oracle.mask, oracle.mask])},
        {"x_init": torch.tensor([0, 1, 2, 2]), "frozen": torch.tensor([False, True, False, False])},
    ):
        whole = run(oracle, guidance, particles=6, groups=3, seed=[4, 5, 6], **options)
        alone = run(oracle, guidance, particles=6, groups=1, seed=[5], **options)
        assert torch.equal(whole.samples[6:12], alone.samples)
        assert bool((whole.samples[:, 1] == 1).all())
        assert bool((whole.samples < oracle.mask).all())
        torch.testing.assert_close(whole.rewards, oracle.reward(whole.samples))
        assert len(whole.trace) == 3 * 3 + (5 if "frozen" not in options else 0)
        assert "gives no estimate" in repr(whole.log_normalizer)


def test_real_states_are_noised_to_their_level():
    process = fg.GaussianProcess((2,), steps=8)
    seeds = torch.tensor([3])
    bound = process.bind(
        fg.processes.Constraints(), groups=1, particles=20_000, seeds=seeds, device=torch.device("cpu")
    )
    x = bound.renoise(torch.full((20_000, 2), 2.0), step=5, seeds=seeds)
    assert float(x.mean()) == pytest.approx(2.0 * process.alphas[5], abs=0.03)
    assert float(x.std()) == pytest.approx(process.sigmas_of_states[5], abs=0.03)
    design = torch.tensor([0.5, -0.5])
    result = fg.sample(
        process, lambda x, t: torch.zeros_like(x), lambda x: x.sum(1), fg.Refine(rounds=2, accept="elites"),
        particles=16, x_init=design, frozen=torch.tensor([True, False]), progress=False,
    )  # fmt: skip
    torch.testing.assert_close(result.samples[:, 0], torch.full((16,), 0.5))
    assert float(result.rewards.min()) >= 0.0


def test_a_budget_ends_the_rounds():
    oracle = TabularMasked(steps=4)
    off = fg.Memory(merge=False)
    budget = fg.Budget(denoiser_rows=6 * 4 + 6 * 2 * 3)
    result = run(oracle, fg.Refine(rounds=50, level=0.5), particles=6, budget=budget, memory=off)
    assert result.denoiser_rows <= budget.denoiser_rows
    assert len(result.trace) == 4 + 3 * 2
    with pytest.raises(ValueError, match="budget: reward_rows"):
        run(oracle, fg.Refine(), particles=6, budget=fg.Budget(reward_rows=7), x_init=torch.tensor([0, 1, 2]))


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"guidance": fg.ParticleGibbs()}, TypeError, "not iterated"),
        ({"guidance": fg.SMC}, TypeError, "guidance"),
        ({"guidance": fg.SMC(target_ess=0.5, ess_threshold=0.9)}, ValueError, "tempering"),
        ({"guidance": fg.SMC(alpha="auto")}, ValueError, "tempering"),
        ({"guidance": fg.SMC(), "accept": "metropolis"}, ValueError, "metropolis"),
        ({"rounds": 0}, ValueError, "rounds"),
        ({"level": 0.0}, ValueError, "level"),
        ({"accept": "never"}, ValueError, "accept"),
    ],
)
def test_settings_are_checked(settings, error, match):
    with pytest.raises(error, match=match):
        fg.Refine(**settings)


def test_processes_that_cannot_noise_again_are_refused():
    process = fg.AutoregressiveProcess(3, 3)
    with pytest.raises(TypeError, match="AutoregressiveProcess"):
        fg.sample(process, lambda x, t: torch.zeros(len(x), 3), lambda x: x.sum(1), fg.Refine(), particles=4)
