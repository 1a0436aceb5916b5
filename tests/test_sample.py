"""The loop against the exact oracle, and what must not change a result."""

from __future__ import annotations

import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import fastguide as fg
from tests.oracle.masked import TabularMasked, total_variation

ALPHA = 1.0


@pytest.fixture(scope="module")
def oracle():
    return TabularMasked()


def run(oracle, guidance, **options):
    options = {"progress": False, "particles": 64, "denoiser": oracle.denoiser, "reward": oracle.reward} | options
    return fg.sample(oracle.process, options.pop("denoiser"), options.pop("reward"), guidance, **options)


class TestExactness:
    def test_unguided_samples_follow_the_process_as_run(self, oracle):
        result = run(oracle, fg.BestOfN(alpha=0.0), particles=20_000)
        # 27 states, 20,000 draws: E[TV] ≈ 0.013; 0.03 is beyond 6 standard deviations.
        assert total_variation(oracle.frequencies(result.samples, result.log_weights), oracle.law()) < 0.03

    @pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
    @pytest.mark.parametrize("rule", ["systematic", "multinomial"])
    def test_smc_converges_to_the_target(self, oracle, threshold, rule):
        target, log_z = oracle.target(ALPHA)
        result = run(oracle, fg.SMC(alpha=ALPHA, ess_threshold=threshold, rule=rule), particles=20_000)
        assert total_variation(oracle.frequencies(result.samples, result.log_weights), target) < 0.05
        assert abs(result.log_normalizer - log_z) < 0.1

    @pytest.mark.parametrize("threshold", [0.0, 0.5, 1.0])
    def test_normalizer_is_unbiased(self, oracle, threshold):
        """4,000 groups of 4 particles: |mean Ẑ − Z| within 4 standard errors (false-alarm rate 6e-5)."""
        _, log_z = oracle.target(ALPHA)
        result = run(oracle, fg.SMC(alpha=ALPHA, ess_threshold=threshold), particles=4, groups=4_000, seed=1)
        ratio = torch.exp(result.log_normalizer.groups - log_z)
        error = float(ratio.std()) / math.sqrt(len(ratio))
        assert abs(float(ratio.mean()) - 1.0) < 4 * error
        assert error < 0.03

    def test_threshold_zero_is_plain_importance_sampling(self, oracle):
        smc = run(oracle, fg.SMC(alpha=ALPHA, ess_threshold=0.0))
        plain = run(oracle, fg.BestOfN(alpha=ALPHA))
        assert torch.equal(smc.samples, plain.samples)
        torch.testing.assert_close(smc.log_weights, plain.log_weights, rtol=0, atol=1e-12)
        assert torch.equal(smc.ancestry.roots, torch.arange(64).expand(1, 64))

    def test_svdd_approaches_the_target_as_the_branch_grows(self, oracle):
        target, _ = oracle.target(ALPHA)
        distance = [
            total_variation(oracle.frequencies(r.samples, r.log_weights), target)
            for r in (run(oracle, fg.SVDD(alpha=ALPHA, branch=m), particles=4_000) for m in (2, 32))
        ]
        unguided = total_variation(oracle.law(), target)
        assert distance[1] < distance[0] < unguided

    def test_svdd_at_alpha_zero_keeps_the_best_child(self, oracle):
        greedy = run(oracle, fg.SVDD(alpha=0.0, branch=16), particles=256)
        assert float(greedy.rewards.mean()) > float(run(oracle, fg.SVDD(alpha=ALPHA, branch=16)).rewards.mean())
        assert math.isnan(greedy.log_normalizer)
        assert "alpha = 0" in repr(greedy.log_normalizer)


GUIDANCE = [
    fg.SMC(alpha=ALPHA),
    fg.SVDD(alpha=ALPHA, branch=4),
    fg.BestOfN(alpha=ALPHA),
    fg.NestedSMC(alpha=ALPHA, branch=3, ess_threshold=0.9),
    fg.Beam(branch=2, best_of="parent"),
    fg.SMC(alpha=ALPHA, potential="max", value_steps=(1, 3), target_ess=0.8, ess_threshold=0.9),
]


def small_network(oracle):
    generator = torch.Generator().manual_seed(5)
    first = torch.nn.Linear(oracle.length * (oracle.vocab + 1), 33)
    last = torch.nn.Linear(33, oracle.length * oracle.vocab)
    with torch.no_grad():
        for p in (*first.parameters(), *last.parameters()):
            p.copy_(torch.randn(p.shape, generator=generator))

    def denoiser(x, t):
        hot = torch.nn.functional.one_hot(x, oracle.vocab + 1).float().flatten(1)
        return last(torch.relu(first(hot))).view(-1, oracle.length, oracle.vocab)

    def reward(x0):
        hot = torch.nn.functional.one_hot(x0, oracle.vocab + 1).float().flatten(1)
        return first(hot).sin().sum(1)

    return denoiser, reward


def convolutional_network(oracle):
    """A Conv2d over the one-hot image ``[1, L, V + 1]``: its last bits change with the batch as those of Linear do."""
    generator = torch.Generator().manual_seed(6)
    first = torch.nn.Conv2d(1, 8, 3, padding=1)
    last = torch.nn.Conv2d(8, 1, (3, 2), padding=(1, 0))
    with torch.no_grad():
        for p in (*first.parameters(), *last.parameters()):
            p.copy_(torch.randn(p.shape, generator=generator))

    def image(x):
        return torch.nn.functional.one_hot(x, oracle.vocab + 1).float()[:, None]

    def denoiser(x, t):
        return last(torch.relu(first(image(x))))[:, 0]

    def reward(x0):
        return first(image(x0)).sin().flatten(1).sum(1)

    return denoiser, reward


def same(a, b):
    assert torch.equal(a.samples, b.samples)
    assert torch.equal(a.log_weights, b.log_weights)
    assert torch.equal(a.rewards, b.rewards)
    assert torch.equal(a.ancestry.parents, b.ancestry.parents)


class TestWhatMustNotMatter:
    @pytest.mark.parametrize("network", [small_network, convolutional_network], ids=lambda f: f.__name__)
    @pytest.mark.parametrize("guidance", GUIDANCE, ids=lambda g: type(g).__name__)
    @pytest.mark.parametrize(
        "memory",
        [
            *(fg.Memory(micro_batch=m) for m in (1, 2, 7, 64)),
            *(fg.Memory(limit=1, micro_batch=m) for m in (1, 7, 64)),
            fg.Memory(merge=False),
            fg.Memory(remember=False),
            fg.Memory(merge=False, remember=False, limit=1, micro_batch=5),
        ],
        ids=str,
    )
    def test_memory_settings(self, oracle, guidance, memory, network):
        denoiser, reward = network(oracle)
        options = {"denoiser": denoiser, "reward": reward, "particles": 37, "groups": 2, "seed": 3}
        same(run(oracle, guidance, **options), run(oracle, guidance, memory=memory, **options))

    @pytest.mark.parametrize("guidance", GUIDANCE, ids=lambda g: type(g).__name__)
    def test_threads(self, oracle, guidance, monkeypatch):
        results = []
        for threads in ("1", "2"):
            monkeypatch.setattr(fg.config, "_ENVIRONMENT_THREADS", threads)
            results.append(run(oracle, guidance, particles=5_000))
        same(*results)

    @pytest.mark.parametrize("guidance", GUIDANCE, ids=lambda g: type(g).__name__)
    def test_backend(self, oracle, guidance):
        with fg.backend("torch"):
            reference = run(oracle, guidance, particles=50, groups=2)
        same(reference, run(oracle, guidance, particles=50, groups=2))

    @pytest.mark.parametrize("guidance", GUIDANCE, ids=lambda g: type(g).__name__)
    def test_other_groups(self, oracle, guidance):
        denoiser, reward = small_network(oracle)
        options = {"denoiser": denoiser, "reward": reward, "particles": 13}
        together = run(oracle, guidance, groups=4, seed=[11, 22, 0, 11], **options)
        alone = run(oracle, guidance, seed=[22], **options)
        assert torch.equal(together.samples[13:26], alone.samples)
        assert torch.equal(together.samples[:13], together.samples[39:])
        assert not torch.equal(together.samples[:13], together.samples[26:39])
        expanded = run(oracle, guidance, groups=2, seed=5, **options)
        again = run(oracle, guidance, seed=[int(expanded.seeds[1])], **options)
        assert torch.equal(expanded.samples[13:], again.samples)

    @pytest.mark.parametrize("guidance", GUIDANCE, ids=lambda g: type(g).__name__)
    def test_runs_beside_it(self, oracle, guidance):
        denoiser, reward = small_network(oracle)

        def one(seed):
            return run(oracle, guidance, denoiser=denoiser, reward=reward, particles=200, seed=seed)

        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(one, range(6)))
        for seed, result in enumerate(together):
            same(result, one(seed))

    def test_inference_mode(self, oracle):
        denoiser, reward = small_network(oracle)
        plain = run(oracle, GUIDANCE[0], denoiser=denoiser, reward=reward)
        with torch.inference_mode():
            inside = run(oracle, GUIDANCE[0], denoiser=denoiser, reward=reward)
        same(plain, inside)
        assert torch.equal(plain.replay(3), inside.replay(3))
        assert not plain.rewards.requires_grad

    def test_default_device_and_dtype(self, oracle):
        def denoiser(x, t):
            return x.new_zeros((*x.shape, oracle.vocab), dtype=torch.float32)

        def smallest_first(x0):
            return [-float(row[0]) for row in x0]

        options = {"denoiser": denoiser, "reward": smallest_first, "groups": 2}
        for guidance in GUIDANCE:
            plain = run(oracle, guidance, **options)
            with torch.device("meta"):
                same(plain, run(oracle, guidance, **options))
                elsewhere = run(oracle, guidance, memory=fg.Memory(merge=False), **options)
                assert elsewhere.trace.distinct.device.type == "cpu"
                same(plain, elsewhere)
            torch.set_default_dtype(torch.float64)
            try:
                same(plain, run(oracle, guidance, **options))
            finally:
                torch.set_default_dtype(torch.float32)

    def test_a_network_that_writes_into_its_input(self, oracle):
        def denoiser(x, t):
            logits = oracle.denoiser(x, t)
            x.zero_()
            return logits

        def reward(x0):
            values = oracle.reward(x0)
            x0.zero_()
            return values

        options = {
            "denoiser": fg.models.wrap(denoiser, batch_invariant=True),
            "reward": fg.rewards.wrap(reward, batch_invariant=True),
        }
        for guidance in GUIDANCE:
            plain = run(oracle, guidance)
            for memory in (fg.Memory(), fg.Memory(merge=False, remember=False), fg.Memory(limit=1)):
                result = run(oracle, guidance, memory=memory, **options)
                same(plain, result)
                assert torch.equal(result.replay(5), plain.replay(5))

    def test_global_random_state_is_neither_read_nor_written(self, oracle):
        torch.manual_seed(1)
        first = run(oracle, GUIDANCE[0])
        state = torch.get_rng_state()
        second = run(oracle, GUIDANCE[0])
        assert torch.equal(state, torch.get_rng_state())
        same(first, second)


class TestNumbers:
    def test_any_integer_type_will_do(self, oracle):
        process = fg.MaskedProcess(*(np.int64(n) for n in (oracle.length, oracle.vocab, oracle.steps)))
        plain = run(oracle, fg.SVDD(alpha=0.5, branch=4), groups=2, particles=8, seed=3)
        for seed in (np.int64(3), torch.tensor(3), plain.seeds, plain.seeds.numpy(), plain.seeds.tolist()):
            result = fg.sample(
                process,
                oracle.denoiser,
                oracle.reward,
                fg.SVDD(alpha=np.float32(0.5), branch=np.int32(4)),
                groups=np.int32(2),
                particles=np.int64(8),
                seed=seed,
                progress=False,
            )
            same(plain, result)
        assert len(plain.best(np.int64(3), group=1)) == 3

    def test_seeds_of_a_result_are_its_own(self, oracle):
        seeds = torch.tensor([5])
        result = run(oracle, GUIDANCE[0], seed=seeds)
        seeds += 1
        assert result.seeds.tolist() == [5]


class TestLengths:
    def test_padding_is_never_drawn_scored_or_compared(self, oracle):
        seen = []

        def reward(x0):
            seen.append(x0.shape[1])
            return x0.sum(1).float()

        result = run(oracle, fg.SMC(alpha=ALPHA), reward=reward, groups=2, lengths=[3, 2], seed=[7, 7])
        assert set(seen) == {2, 3}
        assert (result.groups, result.particles) == (2, 64)
        assert bool((result.samples[64:, 2] == oracle.vocab).all())
        assert bool((result.samples[:64] < oracle.vocab).all())
        assert result.draw(5, group=1).shape == (5, 2)
        with pytest.raises(ValueError, match="group"):
            result.draw(5)


class TestCost:
    def test_one_denoiser_row_a_distinct_state_and_step(self, oracle):
        calls = []

        def denoiser(x, t):
            calls.append(x.clone())
            return oracle.denoiser(x, t)

        result = run(oracle, GUIDANCE[1], denoiser=fg.models.wrap(denoiser, batch_invariant=True))
        assert all(len(x.unique(dim=0)) == len(x) for x in calls)
        assert len(calls) == oracle.steps
        assert result.denoiser_rows == sum(len(x) for x in calls) == int(result.trace.denoiser_rows.sum())

    def test_one_reward_row_a_distinct_sample(self, oracle):
        rows = []

        def reward(x0):
            rows.extend(map(tuple, x0.tolist()))
            return oracle.reward(x0)

        result = run(oracle, GUIDANCE[1], reward=fg.rewards.wrap(reward, batch_invariant=True))
        assert len(rows) == len(set(rows)) == result.reward_rows

    def test_a_full_reward_memory_starts_afresh_and_changes_no_result(self, oracle, monkeypatch):
        plain = run(oracle, GUIDANCE[1])
        monkeypatch.setattr("fastguide.rewards.calls.MEMORY_ROWS", 5)
        small = run(oracle, GUIDANCE[1])
        same(plain, small)
        assert small.reward_rows > plain.reward_rows

    def test_random_rewards_are_evaluated_for_every_sample(self, oracle):
        generator = torch.Generator().manual_seed(0)
        reward = fg.rewards.wrap(
            lambda x0: torch.randn(len(x0), generator=generator), deterministic=False, batch_invariant=True
        )
        result = run(oracle, GUIDANCE[2], reward=reward)
        assert result.reward_rows == 64
        assert len(result.rewards.unique()) == 64

    @pytest.mark.parametrize("steps", [(), (0,), (2,), range(1, 4, 2), (9,)], ids=str)
    def test_values_are_computed_where_they_are_read(self, oracle, steps):
        options = {"reward": fg.rewards.wrap(oracle.reward, deterministic=False)}
        guidance = fg.SMC(alpha=ALPHA, potential="max_difference", value_steps=steps)
        result = run(oracle, guidance, **options)
        # Row k of the trace has the values after k + 1 steps; those of the noise are counted with the first.
        read = [k + 1 in steps or (k == 0 and 0 in steps) for k in range(oracle.steps - 1)]
        assert (result.trace.reward_rows[:-1] > 0).tolist() == read
        assert result.denoiser_rows == int(result.trace.distinct[:-1].sum()) + 1
        if oracle.steps - 1 not in steps:
            nothing_new = run(oracle, guidance, memory=fg.Memory(limit=1), **options)
            same(result, nothing_new)

    def test_best_of_n_computes_no_values(self, oracle):
        result = run(oracle, fg.BestOfN())
        assert int(result.trace.reward_rows[:-1].sum()) == 0

    def test_recomputed_rows_are_counted(self, oracle):
        result = run(oracle, GUIDANCE[0], memory=fg.Memory(limit=1))
        assert int(result.trace.recomputed_rows.sum()) > 0


class TestResult:
    def test_replay_gives_the_trajectory_of_a_sample(self, oracle):
        denoiser, reward = small_network(oracle)
        for guidance in GUIDANCE:
            result = run(oracle, guidance, denoiser=denoiser, reward=reward, groups=2, particles=9)
            for i in (0, 8, 9, 17):
                trajectory = result.replay(i)
                assert trajectory.shape == (oracle.steps + 1, oracle.length)
                assert bool((trajectory[0] == oracle.vocab).all())
                assert torch.equal(trajectory[-1], result.samples[i])
                fixed = trajectory[:-1] != oracle.vocab
                assert torch.equal(trajectory[:-1][fixed], trajectory[1:][fixed])

    def test_draw_is_equally_weighted(self, oracle):
        result = run(oracle, fg.SMC(alpha=ALPHA, ess_threshold=0.0), particles=2_000)
        drawn = result.draw(2_000)
        weighted = oracle.frequencies(result.samples, result.log_weights)
        assert total_variation(oracle.frequencies(drawn, torch.zeros(2_000, dtype=torch.float64)), weighted) < 0.02
        assert torch.equal(drawn, result.draw(2_000))
        assert not torch.equal(drawn, result.draw(2_000, seed=1))

    def test_best_is_distinct_and_sorted(self, oracle):
        result = run(oracle, GUIDANCE[1])
        best = result.best(5)
        assert len(best.unique(dim=0)) == len(best)
        rewards = oracle.reward(best)
        assert torch.equal(rewards, rewards.sort(descending=True).values)

    def test_replicates_give_a_standard_error(self, oracle):
        result = run(oracle, GUIDANCE[0], groups=8, particles=200)
        _, log_z = oracle.target(ALPHA)
        # 8 replicates: |estimate − truth| below 5 standard errors of a t distribution with 7 degrees, false alarms 2e-3.
        assert abs(result.log_normalizer - log_z) < 5 * result.log_normalizer.standard_error
        assert "±" in str(result.log_normalizer)

    def test_a_pickled_result_lacks_only_the_model(self, oracle):
        denoiser, reward = small_network(oracle)
        result = run(oracle, GUIDANCE[0], denoiser=denoiser, reward=reward, groups=2)
        for copied in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
            same(result, copied)
            assert torch.equal(result.draw(7), copied.draw(7))
            assert copied.log_normalizer == result.log_normalizer
            assert copied.log_normalizer.standard_error == result.log_normalizer.standard_error
            assert torch.equal(copied.trace.ess, result.trace.ess)
            with pytest.raises(RuntimeError, match="pickled"):
                copied.replay(0)

    def test_normalizers_of_different_problems_are_not_pooled(self, oracle):
        result = run(oracle, GUIDANCE[0], reward=[oracle.reward, lambda x0: 2 * oracle.reward(x0)], groups=2)
        assert math.isnan(result.log_normalizer)
        assert "different problems" in repr(result.log_normalizer)
        assert bool(result.log_normalizer.groups.isfinite().all())

    def test_trace_has_a_row_a_step(self, oracle):
        steps = []
        result = run(oracle, GUIDANCE[0], callback=steps.append)
        assert steps == list(result.trace)
        assert result.trace.ess.shape == (oracle.steps, 1)
        assert result.trace.resampled.dtype == torch.bool
        assert int(result.trace.unique_ancestors[-1]) == len(result.ancestry.roots.unique())


class TestZeroMeansNever:
    def test_forbidden_samples_are_in_no_result(self, oracle):
        def reward(x0):
            return torch.where(x0[:, 0] == 0, -torch.inf, oracle.reward(x0))

        for guidance in GUIDANCE:
            result = run(oracle, guidance, reward=reward)
            assert bool((result.draw(500)[:, 0] != 0).all())
            assert bool((result.best(500)[:, 0] != 0).all())

    def test_smc_with_a_hard_constraint_is_exact(self, oracle):
        allowed = torch.ones(27, dtype=torch.bool)
        allowed[:9] = False
        target, _ = oracle.target(ALPHA)
        target = torch.where(allowed, target, 0)
        result = run(
            oracle,
            fg.SMC(alpha=ALPHA),
            reward=lambda x0: torch.where(x0[:, 0] == 0, -torch.inf, oracle.reward(x0)),
            particles=20_000,
        )
        assert total_variation(oracle.frequencies(result.samples, result.log_weights), target / target.sum()) < 0.05

    @pytest.mark.parametrize("guidance", [g for g in GUIDANCE if g.alpha > 0], ids=lambda g: type(g).__name__)
    def test_weights_out_of_range_name_alpha(self, oracle, guidance):
        with pytest.raises(ValueError, match="larger alpha"):
            run(oracle, guidance, reward=lambda x0: oracle.reward(x0) + 1e12)
        if isinstance(guidance, fg.SVDD):
            return  # it leaves the samples unweighted
        with pytest.raises(fg.DegenerateWeights, match="larger alpha"):
            run(oracle, guidance, reward=lambda x0: oracle.reward(x0) - 1e12)

    @pytest.mark.parametrize("penalty", [-1e6, -1e12, -1e300])
    def test_huge_penalties_on_the_way_leave_no_trace_in_the_weights(self, oracle, penalty):
        start = oracle.process.prior(1)
        first_guess = int(oracle.process.mode(start, oracle.denoiser(start, None))[0, 0])

        def reward(x0):
            return torch.where(x0[:, 0] == first_guess, penalty, oracle.reward(x0))

        smc = run(oracle, fg.SMC(alpha=ALPHA, ess_threshold=0.0), reward=reward)
        plain = run(oracle, fg.BestOfN(alpha=ALPHA), reward=reward)
        alive = smc.rewards > penalty
        assert 0 < int(alive.sum()) < 64
        torch.testing.assert_close(smc.log_weights[alive], plain.log_weights[alive], rtol=0, atol=1e-6)

    def test_a_group_without_weight_fails_by_name_and_the_others_go_on(self, oracle):
        def never(x0):
            return torch.full((len(x0),), -torch.inf)

        with pytest.raises(fg.DegenerateWeights, match="group 1") as error:
            run(oracle, GUIDANCE[0], reward=[oracle.reward, never, oracle.reward], groups=3, seed=[1, 2, 3])
        assert error.value.groups == (1,)
        good = error.value.result
        with pytest.raises(fg.DegenerateWeights, match="group 1 has weight zero; there is nothing to draw"):
            good.draw(3, group=1)
        assert len(good.best(3, group=1)) == 0
        assert torch.equal(good.samples[:64], run(oracle, GUIDANCE[0], seed=[1]).samples)


def bad_reward_shape(x0):
    return torch.zeros(len(x0), 2)


def bad_reward_nan(x0):
    return torch.full((len(x0),), torch.nan)


def bad_reward_raises(x0):
    raise KeyError("no licence")


class ShortKey(fg.models.Denoiser):
    def key(self, x, state, rows=None):
        return x[:-1]


class TestBadInput:
    @pytest.mark.parametrize(
        ("reward", "words"),
        [
            (bad_reward_shape, "bad_reward_shape.*expected shape"),
            (lambda x0: torch.zeros(len(x0), 1), r"values\[:, 0\]"),
            (lambda x0: torch.zeros(len(x0), dtype=torch.complex64), "real number"),
            (bad_reward_nan, "bad_reward_nan.*nan"),
            (bad_reward_raises, "bad_reward_raises.*KeyError.*no licence"),
            (lambda x0: "no", "one number a sample"),
        ],
    )
    def test_rewards(self, oracle, reward, words):
        with pytest.raises(fg.RewardError, match=words):
            run(oracle, GUIDANCE[0], reward=reward)

    @pytest.mark.parametrize(
        ("options", "error", "words"),
        [
            ({"particles": 0}, ValueError, "particles"),
            ({"groups": -1}, ValueError, "groups"),
            ({"seed": -1}, ValueError, "seed"),
            ({"seed": [1, 2]}, ValueError, "seed"),
            ({"seed": 1.5}, TypeError, "seed"),
            ({"seed": [2**64]}, ValueError, "seed"),
            ({"seed": "1"}, TypeError, "seed"),
            ({"seed": torch.tensor(1.5)}, TypeError, "seed"),
            ({"particles": 2.0}, TypeError, "particles"),
            ({"lengths": [9]}, ValueError, "lengths"),
            ({"lengths": [2.5]}, ValueError, "lengths"),
            ({"lengths": 2}, ValueError, "lengths"),
            ({"bias": torch.zeros(7)}, ValueError, "bias"),
            ({"memory": "lots"}, ValueError, "memory"),
            ({"x_init": torch.zeros(5, dtype=torch.int64)}, ValueError, "x_init"),
            ({"progress": 3}, TypeError, "progress"),
            ({"reward": None}, TypeError, "reward"),
            ({"reward": [max, max]}, ValueError, "reward"),
            ({"condition": 3}, TypeError, "condition"),
            ({"denoiser": None}, TypeError, "denoiser"),
            ({"denoiser": lambda x, t: torch.zeros(len(x), 3, 4)}, ValueError, "denoiser.*mask has no logit column"),
            ({"denoiser": ShortKey()}, ValueError, "denoiser.*key"),
            ({"particels": 3}, TypeError, "particels"),
        ],
    )
    def test_arguments(self, oracle, options, error, words):
        with pytest.raises(error, match=words):
            run(oracle, GUIDANCE[0], **options)

    @pytest.mark.parametrize(
        "make",
        [
            lambda: fg.SMC(alpha=0),
            lambda: fg.SMC(alpha=-1),
            lambda: fg.SMC(ess_threshold=2),
            lambda: fg.SMC(rule="argmax"),
            lambda: fg.SMC(potential="mean"),
            lambda: fg.SMC(value_steps=5),
            lambda: fg.SMC(value_steps=(0.5,)),
            lambda: fg.SMC(value_steps=range(-3, 5)),
            lambda: fg.SMC(alphas=(2.0, 0.0)),
            lambda: fg.SMC(alphas=2.0),
            lambda: fg.SMC(target_ess=1.0),
            lambda: fg.SMC(target_ess=0.8),
            lambda: fg.SMC(target_ess=0.5, alphas=(2.0,)),
            lambda: fg.NestedSMC(alpha=0),
            lambda: fg.NestedSMC(branch=1),
            lambda: fg.NestedSMC(ess_threshold=-0.1),
            lambda: fg.NestedSMC(rule="topk"),
            lambda: fg.Beam(branch=1),
            lambda: fg.Beam(best_of="beam"),
            lambda: fg.SVDD(alpha=-1),
            lambda: fg.SVDD(branch=1),
            lambda: fg.BestOfN(alpha=float("nan")),
            lambda: fg.MaskedProcess(length=0, vocab=3),
            lambda: fg.MaskedProcess(length=3, vocab=3, schedule="warp"),
            lambda: fg.MaskedProcess(length=3, vocab=3, schedule=lambda t: t),
            lambda: fg.MaskedProcess(length=3, vocab=3, temperature=-1),
            lambda: fg.PosteriorMean(decode="mean"),
        ],
    )
    def test_settings(self, make):
        with pytest.raises(ValueError, match=r"expected|unknown|must|leaves|needs|leave out|raise ess_threshold"):
            make()
