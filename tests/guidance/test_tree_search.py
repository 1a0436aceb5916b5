"""Tree search against the exact target, and the tree itself: counts, values, merged children, limits."""

from __future__ import annotations

import pytest
import torch

import fastguide as fg
from fastguide.guidance import tree_search
from fastguide.guidance.tree.level import NONE
from fastguide.guidance.tree.search import Search
from tests.oracle.masked import TabularMasked, total_variation


@pytest.fixture(scope="module")
def oracle():
    return TabularMasked()


def run(oracle, guidance, **options):
    denoiser = fg.models.wrap(oracle.denoiser, batch_invariant=True)
    settings = {"progress": False, "particles": 64, "reward": fg.rewards.wrap(oracle.reward, batch_invariant=True)}
    settings |= options
    return fg.sample(oracle.process, denoiser, settings.pop("reward"), guidance, **settings)


def distance(oracle, guidance, *, groups=8):
    """Mean total variation of the trees of several groups to the target, as 20,000 samples of each show it."""
    result = run(oracle, guidance, particles=20_000, groups=groups)
    target, _ = oracle.target(guidance.alpha)
    even = torch.zeros(20_000, dtype=torch.float64)
    samples = result.samples.view(groups, 20_000, -1)
    return sum(total_variation(oracle.frequencies(own, even), target) for own in samples) / groups


@pytest.fixture
def searches(monkeypatch):
    """The trees of the runs of a test."""
    kept = []

    class Kept(Search):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            kept.append(self)

    monkeypatch.setattr(tree_search, "Search", Kept)
    return kept


class TestTarget:
    @pytest.mark.parametrize(
        ("policy", "growth", "most"), [("boltzmann", 0.5, 10_000), ("boltzmann", 0.8, 10_000), ("uct", 0.8, 2_500)]
    )
    def test_comes_nearer_with_rollouts(self, oracle, policy, growth, most):
        """Means of 8 trees: 0.38, 0.20, 0.08 and 0.32, 0.11, 0.04 and 0.42, 0.24, 0.14."""
        far = [
            distance(oracle, fg.TreeSearch(rollouts=n, policy=policy, growth=growth, batch=max(16, n // 32)))
            for n in (most // 100, most // 10, most)
        ]
        assert far[0] > 1.4 * far[1] > 1.96 * far[2]
        assert far[2] < 0.2

    def test_that_always_draws_is_importance_sampling(self, oracle):
        """Nothing is chosen, so leaves have the weights of independent samples: TV as that of `BestOfN`."""
        n = 2_000
        plain = run(oracle, fg.BestOfN(), particles=n, groups=8)
        weights = plain.log_weights.view(8, n)
        target, _ = oracle.target(1.0)
        expected = sum(
            total_variation(oracle.frequencies(x, w), target)
            for x, w in zip(plain.samples.view(8, n, -1), weights, strict=True)
        )
        assert distance(oracle, fg.TreeSearch(rollouts=n, growth=1.0, batch=64)) < 1.4 * expected / 8

    def test_children_without_their_counts_are_found_out(self, oracle, monkeypatch):
        class NoCounts(Search):
            """The mutant: equal children are merged, and how often they were drawn is forgotten."""

            def descend(self, count, timer):
                leaves = super().descend(count, timer)
                for level in self.levels:
                    level.count[: level.size] = 1
                    level.draws[: level.size] = level.degree[: level.size]
                return leaves

        guidance = fg.TreeSearch(rollouts=5_000, growth=0.9, batch=160)
        assert distance(oracle, guidance) < 0.06
        monkeypatch.setattr(tree_search, "Search", NoCounts)
        assert distance(oracle, guidance) > 0.12

    @pytest.mark.parametrize("policy", ["boltzmann", "uct"])
    def test_alpha_zero_finds_the_largest_reward(self, oracle, policy):
        guidance = fg.TreeSearch(alpha=0.0, rollouts=2_000, policy=policy, growth=0.8, batch=50)
        result = run(oracle, guidance, groups=5, particles=3)
        assert bool((result.rewards.view(5, 3)[:, 0] == oracle.rewards.max()).all())
        assert bool((result.rewards.view(5, 3).diff(dim=1) <= 0).all())
        assert "alpha = 0" in repr(result.log_normalizer)

    def test_no_forbidden_sample_is_drawn(self, oracle):
        def reward(x0):
            return torch.where(x0[:, 0] == 0, -torch.inf, oracle.reward(x0))

        for guidance in (fg.TreeSearch(rollouts=50), fg.TreeSearch(rollouts=50, policy="uct")):
            result = run(oracle, guidance, reward=reward)
            assert bool((result.samples[:, 0] != 0).all())
        with pytest.raises(fg.DegenerateWeights, match="every sample of group 0"):
            run(oracle, fg.TreeSearch(rollouts=20), reward=lambda x0: torch.full((len(x0),), -torch.inf))

    def test_given_tokens_stay(self, oracle):
        x_init = torch.tensor([oracle.mask, 2, oracle.mask])
        result = run(oracle, fg.TreeSearch(rollouts=40), x_init=x_init, bias=torch.tensor([0.0, 0.0, -torch.inf]))
        assert bool((result.samples[:, 1] == 2).all())
        assert bool((result.samples[:, [0, 2]] < 2).all())


class TestTree:
    @pytest.mark.parametrize("policy", ["boltzmann", "uct"])
    def test_is_what_its_definition_says(self, oracle, searches, policy):
        groups, rollouts, alpha = 3, 300, 0.7
        run(oracle, fg.TreeSearch(alpha=alpha, rollouts=rollouts, policy=policy, growth=0.6), groups=groups)
        levels = searches[0].levels
        for depth, level in enumerate(levels):
            used = slice(0, level.size)
            visits = torch.zeros(groups, dtype=torch.int64).index_add(0, level.group[used], level.visits[used])
            assert visits.tolist() == [rollouts] * groups
            if depth + 1 == len(levels):
                assert torch.equal(level.value[used], oracle.reward(level.x[used]))
                break
            below, nodes = levels[depth + 1], torch.arange(level.size)
            children = level.children_of(nodes)
            assert torch.equal(children[children != NONE].sort().values, torch.arange(below.size))
            for node in nodes.tolist():
                own = children[node][children[node] != NONE]
                counts = below.count[own].double()
                assert int(level.draws[node]) == int(counts.sum()) >= 1
                assert bool((below.parent[own] == node).all())
                assert bool((below.group[own] == level.group[node]).all())
                assert len(below.x[own].unique(dim=0)) == len(own)
                value = alpha * torch.log((counts * (below.value[own] / alpha).exp()).sum() / counts.sum())
                torch.testing.assert_close(level.value[node], value, rtol=0, atol=1e-9)

    def test_draws_grow_with_visits(self, oracle, searches):
        run(oracle, fg.TreeSearch(rollouts=150, batch=1, width=2.0, growth=0.5))
        for level in searches[0].levels[:-1]:
            visits, draws = level.visits[: level.size], level.draws[: level.size]
            assert torch.equal(draws, torch.minimum(visits, (2 * visits.double().sqrt() + 1e-9).long()))

    def test_samples_come_with_their_trajectories(self, oracle):
        result = run(oracle, fg.TreeSearch(rollouts=100), groups=2, particles=9)
        parents = result.ancestry.parents
        assert parents.shape == (oracle.steps, 2, 9)
        for i in range(18):
            trajectory = result.replay(i)
            assert trajectory.shape == (oracle.steps + 1, oracle.length)
            assert torch.equal(trajectory[-1], result.samples[i])
            fixed = trajectory[:-1] != oracle.mask
            assert torch.equal(trajectory[:-1][fixed], trajectory[1:][fixed])
            group, slot = divmod(i, 9)
            before = result.replay(group * 9 + int(parents[-1, group, slot]))
            assert torch.equal(before[-2], trajectory[-2])

    def test_states_of_the_denoiser_belong_to_the_path(self, oracle):
        class Remembers(fg.models.Denoiser):
            """Its state is the states it has seen, each of which must have come from the one before."""

            def init(self, n, condition=None):
                return {"seen": torch.full((n, 0, oracle.length), oracle.mask), "name": "path"}

            def __call__(self, x, t, state=None, rows=None):
                seen = state["seen"][rows]
                known = seen != oracle.mask
                assert torch.equal(seen[known], x[:, None].expand_as(seen)[known])
                assert seen.shape[1] == round(float(1 - t[0]) * oracle.steps)
                after = {"seen": torch.cat([seen, x[:, None]], 1), "name": "path"}
                return fg.models.Prediction(oracle.denoiser(x, t), after)

        result = fg.sample(
            oracle.process, Remembers(), oracle.reward, fg.TreeSearch(rollouts=200), particles=8, groups=2,
            progress=False,
        )  # fmt: skip
        assert result.provenance["rollouts"] == 200

    def test_real_states_and_prefixes_are_nodes_too(self):
        process = fg.GaussianProcess((2,), steps=5)
        result = fg.sample(
            process, lambda x, t: torch.zeros_like(x), lambda x0: x0.sum(1), fg.TreeSearch(rollouts=64), particles=16,
            progress=False,
        )  # fmt: skip
        assert result.samples.shape == (16, 2)
        assert result.replay(3).shape == (6, 2)
        process = fg.AutoregressiveProcess(4, 3)
        result = fg.sample(
            process, lambda x, t: torch.zeros(len(x), 3), lambda x0: (x0 == 1).sum(1).double(),
            fg.TreeSearch(alpha=0.0, rollouts=500, growth=0.8), particles=4, progress=False,
        )  # fmt: skip
        assert float(result.rewards[0]) == 4.0


class TestLimits:
    def test_memory_ends_the_search(self, oracle, searches):
        free = run(oracle, fg.TreeSearch(rollouts=800))
        limit = searches[0].nbytes() // 3
        held = run(oracle, fg.TreeSearch(rollouts=800), memory=fg.Memory(limit=limit))
        assert searches[1].nbytes() <= limit
        assert 16 <= held.provenance["rollouts"] < 800 == free.provenance["rollouts"]
        assert held.samples.shape == free.samples.shape

    @pytest.mark.parametrize("kind", ["denoiser_rows", "reward_rows"])
    def test_a_budget_ends_the_search(self, oracle, kind):
        budget = fg.Budget(**{kind: 600})
        reward = fg.rewards.wrap(oracle.reward, deterministic=False)
        result = run(
            oracle, fg.TreeSearch(rollouts=1_000, growth=0.9), particles=64, budget=budget, reward=reward,
            memory=fg.Memory(remember=False),
        )  # fmt: skip
        assert 300 <= getattr(result, kind) <= 600
        assert sum(getattr(step, kind) for step in result.trace) == getattr(result, kind)

    def test_fewer_rollouts_than_a_batch_or_particles(self, oracle):
        result = run(oracle, fg.TreeSearch(rollouts=5, batch=64), particles=40)
        assert result.provenance["rollouts"] == 5
        assert len(result.trace) == 1
        assert result.particles == 40


class TestWhatMustNotMatter:
    guidance = (fg.TreeSearch(rollouts=120), fg.TreeSearch(rollouts=120, policy="uct"))

    @pytest.mark.parametrize("guidance", guidance, ids=lambda g: g.policy)
    def test_groups_backends_and_memory(self, oracle, guidance):
        whole = run(oracle, guidance, groups=3, seed=[4, 5, 6])
        alone = run(oracle, guidance, seed=[5])
        assert torch.equal(whole.samples[64:128], alone.samples)
        assert not torch.equal(whole.samples[:64], alone.samples)
        for memory in (fg.Memory(merge=False), fg.Memory(micro_batch=3), fg.Memory(remember=False)):
            assert torch.equal(run(oracle, guidance, seed=[5], memory=memory).samples, alone.samples)
        with fg.backend("torch"):
            assert torch.equal(run(oracle, guidance, seed=[5]).samples, alone.samples)


@pytest.mark.parametrize(
    "settings",
    [{"alpha": -1}, {"rollouts": 0}, {"policy": "greedy"}, {"batch": 0}, {"width": 0.5}, {"growth": 1.5},
     {"exploration": -1}],
)  # fmt: skip
def test_settings_are_checked(settings):
    with pytest.raises((ValueError, TypeError), match=next(iter(settings))):
        fg.TreeSearch(**settings)


def test_there_is_no_step_to_take():
    s = fg.Steering(fg.TreeSearch(), particles=2)
    s.begin()
    s.weigh()
    with pytest.raises(TypeError, match=r"give it to fastguide\.sample"):
        s.select()
