"""Discrete processes without a mask against the exact oracle: laws, guided laws, scores, constraints, errors."""

from __future__ import annotations

import pytest
import torch

import fastguide as fg
from tests.mutants import MUTANTS
from tests.oracle.checks import normalizer_is_unbiased, samples_follow_the_target
from tests.oracle.enumerable import noise_floor, total_variation
from tests.oracle.steer import read, steer, wrong
from tests.oracle.uniform import TabularDiscrete, random_transitions

ALPHA = 1.0
SCORES = {"prediction": "score"}


def late(t: float) -> float:
    """A schedule that keeps something at t = 1, as scores need it."""
    return 1.0 - 0.9 * t


ORACLES = {
    "uniform": {},
    "temperature": {"options": {"temperature": 0.5}},
    "top-k": {"options": {"top_k": 2}},
    "cosine": {"a": lambda t: max(0.0, 1 - t**2)},
    "bias": {"bias": torch.tensor([[0.0, -torch.inf, 1.0]] * 3)},
    "scores": {"a": late, "options": SCORES},
    "tau-leaping": {"a": late, "options": SCORES | {"sampler": "tau_leaping"}},
    "matrices": {"transitions": random_transitions(4, 3)},
}


def sample(oracle, guidance, **options):
    bias = None if oracle.bias is None else oracle.bias.float()
    settings = {"particles": 20_000, "progress": False, "bias": bias} | options
    return fg.sample(oracle.process, oracle.denoiser, oracle.reward, guidance, **settings)


class TestLaw:
    # 27 states, 20,000 draws: E[TV] ≈ 0.013; 0.03 is beyond 6 standard deviations.
    @pytest.mark.parametrize("name", ORACLES)
    def test_unguided_samples_follow_the_process_as_run(self, name):
        oracle = TabularDiscrete(**ORACLES[name])
        result = sample(oracle, fg.BestOfN(alpha=0.0), seed=3)
        assert total_variation(oracle.frequencies(result.samples, result.log_weights), oracle.law()) < 0.03

    @pytest.mark.parametrize("transitions", [None, random_transitions(4, 3)], ids=["uniform", "matrices"])
    def test_scores_and_posteriors_give_the_same_law(self, transitions):
        """The exact scores of a table and its exact posteriors: equal log-laws in every state and step, to float32."""
        a = late if transitions is None else None
        one, two = (TabularDiscrete(a=a, transitions=transitions, options=o) for o in ({}, SCORES))
        settings = {"groups": 1, "particles": 1, "seeds": torch.zeros(1).long(), "device": torch.device("cpu")}
        bounds = [o.process.bind(fg.processes.Constraints(), **settings) for o in (one, two)]
        for step in range(4):
            t = torch.full((27,), one.process.times[step])
            for to_data in (False, True):
                laws = [
                    torch.softmax(
                        b.log_law(o.states, o.denoiser(o.states, t), step, None, to_data=to_data).double(), -1
                    )
                    for o, b in zip((one, two), bounds, strict=True)
                ]
                torch.testing.assert_close(*laws, rtol=0, atol=3e-6)
                exact = one.posteriors[step] if to_data else one.positions(step)
                torch.testing.assert_close(laws[0], exact, rtol=0, atol=1e-6)

    def test_uniform_matrices_are_the_uniform_process(self):
        one = TabularDiscrete(a=late)
        two = TabularDiscrete(transitions=one.transitions)
        results = [sample(o, fg.SMC(alpha=ALPHA), particles=500) for o in (one, two)]
        # float32 logarithms of two formulas differ in their last bits, which no draw of 500 sees.
        assert torch.equal(results[0].samples, results[1].samples)

    def test_temperature_zero_ends_in_the_most_probable_token(self):
        oracle = TabularDiscrete(steps=1)
        cold = fg.UniformProcess(3, 3, 1, temperature=0.0)
        result = fg.sample(cold, oracle.denoiser, oracle.reward, fg.BestOfN(), particles=50, progress=False)
        assert (result.samples == oracle.posteriors[0][0].argmax(-1)).all()


class TestGuided:
    @pytest.mark.parametrize(
        "guidance",
        [fg.SMC(alpha=ALPHA, ess_threshold=0.9), fg.NestedSMC(alpha=ALPHA, branch=2), fg.BestOfN(alpha=ALPHA)],
        ids=lambda g: type(g).__name__,
    )
    @pytest.mark.parametrize("name", ["uniform", "matrices"])
    def test_samples_follow_the_target(self, name, guidance):
        samples_follow_the_target(TabularDiscrete(**ORACLES[name]), guidance, particles=4_000)

    @pytest.mark.parametrize(
        "guidance",
        [fg.SMC(alpha=ALPHA, ess_threshold=0.9), fg.NestedSMC(alpha=ALPHA, branch=2)],
        ids=lambda g: type(g).__name__,
    )
    def test_normalizer_is_unbiased_whatever_the_values(self, guidance):
        normalizer_is_unbiased(TabularDiscrete(), guidance, wrong(0.5))

    @pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: type(m).__name__)
    def test_normalizer_shows_every_mutant(self, mutant):
        with pytest.raises(AssertionError, match="mean Ẑ"):
            normalizer_is_unbiased(TabularDiscrete(), mutant)

    @pytest.mark.parametrize("guidance", [fg.SVDD(alpha=0.5, branch=3), fg.Beam(branch=3, best_of="parent")], ids=repr)
    def test_samples_of_svdd_and_beam_follow_their_own_law(self, guidance):
        """20,000 independent particles over 27 states: TV above 1.5 times the noise has probability below 1e-5."""
        oracle = TabularDiscrete()
        values = oracle.posterior_means()
        run = steer(oracle, guidance, read(oracle, values), particles=20_000)
        law = oracle.svdd_law(values, 3, guidance.alpha)
        distance = total_variation(oracle.frequencies(run.samples, run.steering.log_weights[0]), law)
        assert distance < 1.5 * noise_floor(law, 20_000)

    def test_the_loop_reads_the_values_of_the_oracle(self):
        oracle = TabularDiscrete()
        guidance = fg.SMC(alpha=ALPHA)
        run = steer(oracle, guidance, read(oracle, oracle.posterior_means()), particles=200, groups=2, seed=4)
        result = sample(oracle, guidance, particles=200, groups=2, seed=4)
        assert torch.equal(run.samples, result.samples)
        torch.testing.assert_close(run.steering.log_weights.flatten(), result.log_weights, rtol=0, atol=1e-12)

    def test_ratio_of_a_shifted_proposal_is_that_of_the_laws(self):
        oracle = TabularDiscrete()
        bound = oracle.process.bind(
            fg.processes.Constraints(), groups=2, particles=300, seeds=torch.tensor([1, 2]), device=torch.device("cpu")
        )
        shift = torch.randn(27, 3, 3, generator=torch.Generator().manual_seed(0))
        output = oracle.denoiser(oracle.states, torch.full((27,), 0.5))
        group, ancestors = torch.arange(2), torch.arange(600) % 27
        options = {"step": 2, "group": group, "ancestors": ancestors}
        children = bound.propose(oracle.states, output, seed=torch.tensor([1, 2]), branch=40, shift=shift, **options)
        ratio = bound.log_ratio(children, oracle.states, output, shift, **options)
        p = oracle.positions(2)
        q = torch.softmax(p.log() + shift.double(), -1)
        exact = (p / q).log()[ancestors][:, None].expand(-1, 40, -1, -1).gather(3, children[..., None])[..., 0].sum(-1)
        torch.testing.assert_close(ratio, exact, rtol=0, atol=1e-5)
        # 900 draws or so of each state's position, their frequencies against q: five standard deviations of 0.017.
        for state in (0, 13, 26):
            own = children[ancestors == state].flatten(0, 1)
            frequency = torch.nn.functional.one_hot(own, 3).double().mean(0)
            assert (frequency - q[state]).abs().max() < 0.085


class TestConstraints:
    @pytest.mark.parametrize(
        "memory", [fg.Memory(merge=False), fg.Memory(limit=1, micro_batch=7), fg.Memory(micro_batch=7)], ids=str
    )
    def test_memory_changes_nothing(self, memory, monkeypatch):
        oracle = TabularDiscrete()
        expected = sample(oracle, fg.SVDD(alpha=ALPHA, branch=3), particles=60, groups=2)
        monkeypatch.setattr(fg.processes.discrete.BoundDiscrete, "_part", 5)
        result = sample(oracle, fg.SVDD(alpha=ALPHA, branch=3), particles=60, groups=2, memory=memory)
        assert torch.equal(expected.samples, result.samples)
        for i in (0, 77):
            assert torch.equal(result.replay(i)[-1], result.samples[i])

    def test_a_group_depends_on_its_seed_alone(self):
        oracle = TabularDiscrete()
        together = sample(oracle, fg.SMC(alpha=ALPHA), particles=50, groups=3, seed=[5, 6, 7])
        alone = sample(oracle, fg.SMC(alpha=ALPHA), particles=50, seed=[6])
        assert torch.equal(together.samples[50:100], alone.samples)

    def test_given_tokens_stay_and_forbidden_ones_never_end(self):
        process = fg.UniformProcess(6, 4, 8)
        seen = []

        def denoiser(x, t):
            seen.append(x.clone())
            return torch.zeros(len(x), 6, 4)

        bias = torch.tensor([0.0, -torch.inf, 0.0, 0.0])
        result = fg.sample(
            process, denoiser, lambda x: x.sum(1), fg.SMC(alpha=10.0), particles=300, progress=False, bias=bias,
            x_init=torch.tensor([4, 1, 4, 2, 4, 4]),
        )  # fmt: skip
        states = torch.cat([*seen, result.samples])
        assert (states[:, [1, 3]] == torch.tensor([1, 2])).all()
        assert (states < 4).all()
        assert (result.samples[:, [0, 2, 4, 5]] != 1).all()

    def test_padding_is_neither_read_nor_scored(self):
        widths = set()

        def denoiser(x, t):
            return torch.where(torch.arange(5)[:, None] == 4, torch.nan, 0.0).expand(len(x), 5, 3)

        def reward(x):
            widths.add(x.shape[1])
            return x.sum(1)

        settings = {"particles": 9, "groups": 2, "progress": False}
        process = fg.UniformProcess(5, 3, 4)
        result = fg.sample(process, denoiser, reward, fg.SMC(), lengths=[4, 2], **settings)
        assert widths == {4, 2}
        assert (result.samples < 3).all()
        with pytest.raises(ValueError, match="is nan"):
            fg.sample(process, denoiser, reward, fg.SMC(), **settings)


class TestErrors:
    def test_settings_are_checked(self):
        for settings, message in (
            ({"schedule": "late"}, "schedule: unknown"),
            ({"schedule": lambda t: 1.0}, "schedule: a"),
            ({"prediction": "eps"}, "prediction"),
            ({"prediction": "score"}, "schedule: where a"),
            ({"prediction": "score", "temperature": 0.5}, "prediction"),
            ({"sampler": "tau_leaping"}, "sampler"),
            ({"top_p": 0.0}, "top_p"),
        ):
            with pytest.raises(ValueError, match=message):
                fg.UniformProcess(4, 3, **settings)
        for transitions, message in (
            (torch.ones(3, 3), "expected a tensor of shape"),
            (torch.ones(2, 3, 3), "sum to 1"),
        ):
            with pytest.raises(ValueError, match=message):
                fg.DiscreteProcess(4, transitions)
        with pytest.raises(ValueError, match="inverse"):
            fg.DiscreteProcess(4, torch.full((2, 3, 3), 1 / 3), prediction="score")

    def test_rows_that_give_different_positions_are_refused(self):
        x_init = torch.tensor([[3, 1], [1, 3]])
        with pytest.raises(ValueError, match="same positions"):
            fg.sample(
                fg.UniformProcess(2, 3), lambda x, t: torch.zeros(len(x), 2, 3), lambda x: x.sum(1), fg.SMC(),
                particles=2, x_init=x_init, progress=False,
            )  # fmt: skip
