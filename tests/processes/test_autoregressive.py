"""The autoregressive process against an exact hidden Markov model: laws, guided laws, prompts, ends, errors."""

from __future__ import annotations

import pytest
import torch

import fastguide as fg
from tests.mutants import MUTANTS
from tests.oracle.autoregressive import HiddenMarkov
from tests.oracle.checks import normalizer_is_unbiased, samples_follow_the_target
from tests.oracle.enumerable import noise_floor, total_variation
from tests.oracle.steer import read, steer, wrong

ALPHA = 1.0
ORACLES = {
    "ends": {},
    "full length": {"eos": None},
    "temperature": {"options": {"temperature": 0.5}},
    "top-k": {"options": {"top_k": 2}},
    "no end at first": {"bias": torch.tensor([[0.0, 0.0, -torch.inf], [0.0] * 3, [1.0, 0.0, 0.0]])},
}


@pytest.fixture(scope="module")
def oracle():
    return HiddenMarkov()


def sample(oracle, guidance, **options):
    bias = None if oracle.bias is None else oracle.bias.float()
    settings = {"particles": 20_000, "progress": False, "bias": bias} | options
    return fg.sample(oracle.process, oracle.denoiser, oracle.reward, guidance, **settings)


class TestLaw:
    # 27 states, 20,000 draws: E[TV] ≈ 0.013; 0.03 is beyond 6 standard deviations.
    @pytest.mark.parametrize("name", ORACLES)
    def test_unguided_samples_follow_the_model(self, name):
        oracle = HiddenMarkov(**ORACLES[name])
        result = sample(oracle, fg.BestOfN(alpha=0.0), seed=3)
        assert total_variation(oracle.frequencies(result.samples, result.log_weights), oracle.law()) < 0.03

    def test_logits_of_every_position_serve_as_well_as_those_of_the_next(self, oracle):
        def everywhere(x, t):
            logits = torch.full((len(x), 3, 3), torch.nan)
            free = x == 3
            at = free.int().argmax(1)
            logits[torch.arange(len(x)), at] = oracle.denoiser(x, t)
            return logits

        expected = sample(oracle, fg.SMC(alpha=ALPHA), particles=200)
        result = fg.sample(
            oracle.process, everywhere, oracle.reward, fg.SMC(alpha=ALPHA), particles=200, progress=False
        )
        assert torch.equal(expected.samples, result.samples)


class TestGuided:
    @pytest.mark.parametrize(
        "guidance",
        [fg.SMC(alpha=ALPHA, ess_threshold=0.9), fg.NestedSMC(alpha=ALPHA, branch=2), fg.BestOfN(alpha=ALPHA)],
        ids=lambda g: type(g).__name__,
    )
    def test_samples_follow_the_target(self, oracle, guidance):
        samples_follow_the_target(oracle, guidance, particles=4_000)

    @pytest.mark.parametrize(
        "guidance",
        [fg.SMC(alpha=ALPHA, ess_threshold=0.9), fg.NestedSMC(alpha=ALPHA, branch=2)],
        ids=lambda g: type(g).__name__,
    )
    def test_normalizer_is_unbiased_whatever_the_values(self, oracle, guidance):
        normalizer_is_unbiased(oracle, guidance, wrong(0.5))

    @pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: type(m).__name__)
    def test_normalizer_shows_every_mutant(self, mutant):
        with pytest.raises(AssertionError, match="mean Ẑ"):
            normalizer_is_unbiased(HiddenMarkov(length=4), mutant)

    @pytest.mark.parametrize("guidance", [fg.SVDD(alpha=0.5, branch=3), fg.Beam(branch=3, best_of="parent")], ids=repr)
    def test_samples_of_svdd_and_beam_follow_their_own_law(self, oracle, guidance):
        """20,000 independent particles over 27 states: TV above 1.5 times the noise has probability below 1e-5."""
        values = oracle.posterior_means()
        run = steer(oracle, guidance, read(oracle, values), particles=20_000)
        law = oracle.svdd_law(values, 3, guidance.alpha)
        distance = total_variation(oracle.frequencies(run.samples, run.steering.log_weights[0]), law)
        assert distance < 1.5 * noise_floor(law, 20_000)

    def test_the_loop_reads_the_reward_of_the_padded_prefix(self, oracle):
        guidance = fg.SMC(alpha=ALPHA)
        run = steer(oracle, guidance, read(oracle, oracle.posterior_means()), particles=200, groups=2, seed=4)
        result = sample(oracle, guidance, particles=200, groups=2, seed=4)
        assert torch.equal(run.samples, result.samples)
        torch.testing.assert_close(run.steering.log_weights.flatten(), result.log_weights, rtol=0, atol=1e-12)

    def test_ratio_of_a_shifted_proposal_is_that_of_the_laws(self, oracle):
        bound = oracle.process.bind(
            fg.processes.Constraints(), groups=1, particles=1, seeds=torch.zeros(1).long(), device=torch.device("cpu")
        )
        x = torch.tensor([[3, 3, 3], [0, 3, 3], [1, 0, 3], [1, 2, 0]])
        output = oracle.denoiser(x, None)
        shift = torch.randn(4, 3, 3, generator=torch.Generator().manual_seed(0))
        options = {"step": 1, "group": torch.tensor([0]), "ancestors": torch.arange(4)}
        children = bound.propose(x, output, seed=torch.tensor([1]), branch=50, shift=shift, **options)
        ratio = bound.log_ratio(children, x, output, shift, **options)
        for state, at in ((0, 0), (1, 1), (2, 2)):
            p = torch.softmax(output[state].double(), -1)
            q = torch.softmax(p.log() + shift[state, at].double(), -1)
            torch.testing.assert_close(ratio[state], (p / q).log()[children[state, :, at]], rtol=0, atol=1e-5)
        assert (children[3] == x[3]).all()
        assert (ratio[3] == 0).all()


class TestSequences:
    def test_prompts_of_different_lengths_stay_and_nothing_follows_an_end(self):
        process = fg.AutoregressiveProcess(6, 4, eos=3, pad=0, steps=5)
        x_init = torch.full((3, 6), 4)
        x_init[0, :1] = 1
        x_init[1, :3] = torch.tensor([2, 2, 1])
        x_init[2, :2] = torch.tensor([1, 3])  # ended already
        result = fg.sample(
            process, lambda x, t: torch.zeros(len(x), 4), lambda x: x.sum(1), fg.SMC(alpha=9.0, ess_threshold=0.0),
            particles=3, groups=40, x_init=x_init, progress=False,
        )  # fmt: skip
        rows = result.samples.view(40, 3, 6)
        for i, prompt in enumerate(x_init):
            given = prompt[prompt < 4]
            assert (rows[:, i, : len(given)] == given).all()
        assert (rows < 4).all()
        ended = (rows == 3).cumsum(-1) - (rows == 3).int() > 0
        assert ended.any()
        assert (rows[ended] == 0).all()
        assert (rows[:, 2] == torch.tensor([1, 3, 0, 0, 0, 0])).all()

    def test_groups_have_their_own_lengths(self):
        process = fg.AutoregressiveProcess(5, 3, pad=0)
        widths = set()

        def reward(x):
            widths.add(x.shape[1])
            return x.sum(1)

        result = fg.sample(
            process, lambda x, t: torch.zeros(len(x), 3), reward, fg.SMC(), particles=20, groups=2, lengths=[5, 2],
            progress=False,
        )  # fmt: skip
        assert widths == {5, 2}
        assert (result.samples[20:, 2:] == 0).all()

    @pytest.mark.parametrize("memory", [fg.Memory(merge=False), fg.Memory(limit=1, micro_batch=7)], ids=str)
    def test_memory_changes_nothing(self, oracle, memory):
        expected = sample(oracle, fg.SVDD(alpha=ALPHA, branch=3), particles=60, groups=2)
        result = sample(oracle, fg.SVDD(alpha=ALPHA, branch=3), particles=60, groups=2, memory=memory)
        assert torch.equal(expected.samples, result.samples)
        for i in (0, 77):
            assert torch.equal(result.replay(i)[-1], result.samples[i])

    @pytest.mark.parametrize(
        "memory", [fg.Memory(), fg.Memory(merge=False), fg.Memory(limit=1, micro_batch=7)], ids=str
    )
    @pytest.mark.parametrize("value", [None, fg.values.MonteCarlo(2)], ids=repr)
    def test_the_denoiser_is_not_asked_for_finished_sequences(self, oracle, memory, value):
        def counted(x, t):
            assert (x == 3).any(1).all()
            return oracle.denoiser(x, t)

        settings = {"value": value, "memory": memory, "groups": 2, "particles": 50, "progress": False}
        guidance = fg.SMC(alpha=ALPHA, ess_threshold=0.9)
        result = fg.sample(oracle.process, counted, oracle.reward, guidance, **settings)
        expected = sample(oracle, guidance, **settings)
        assert torch.equal(result.samples, expected.samples)
        assert torch.equal(result.log_weights, expected.log_weights)
        assert torch.equal(result.replay(60)[-1], result.samples[60])

    @pytest.mark.parametrize("memory", [fg.Memory(), fg.Memory(limit=1, micro_batch=2)], ids=str)
    def test_nothing_is_asked_once_all_are_finished(self, memory):
        process = fg.AutoregressiveProcess(6, 4, eos=3)
        calls = []

        def denoiser(x, t):
            calls.append(len(x))
            return torch.tensor([-torch.inf, -torch.inf, -torch.inf, 0.0]).expand(len(x), 4)

        x_init = torch.full((4, 6), 4)
        x_init[:2, 0] = 3  # ended already
        result = fg.sample(
            process, denoiser, lambda x: x.sum(1), fg.SMC(), particles=4, x_init=x_init, progress=False, memory=memory
        )
        assert (result.samples == 3).all()
        assert result.denoiser_rows == (1 if memory.bytes > 1 else 2)
        assert result.trace[-1].denoiser_rows == 0

    def test_rewards_of_finished_sequences_are_not_asked_again(self, oracle):
        """At most the 27 clean samples are ever evaluated, in whatever step they are finished."""
        assert sample(oracle, fg.SMC(alpha=ALPHA), particles=2_000).reward_rows <= 27


class TestErrors:
    def test_settings_are_checked(self):
        for settings, message in (
            ({"eos": 3}, "eos"),
            ({"pad": -1}, "pad"),
            ({"steps": 0}, "steps"),
            ({"top_k": 0}, "top_k"),
        ):
            with pytest.raises(ValueError, match=message):
                fg.AutoregressiveProcess(4, 3, **settings)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"x_init": torch.tensor([3, 1, 3, 3])}, "at the start of its row"),
            ({"frozen": torch.ones(4, dtype=torch.bool)}, "frozen"),
            ({"bias": torch.zeros(4)}, "bias"),
        ],
    )
    def test_constraints_are_checked(self, options, message):
        with pytest.raises(ValueError, match=message):
            self.run(fg.AutoregressiveProcess(4, 3, pad=0), **options)

    def test_too_few_steps_and_missing_padding_say_what_to_do(self):
        with pytest.raises(ValueError, match="give steps=4"):
            self.run(fg.AutoregressiveProcess(4, 3, pad=0, steps=3))
        with pytest.raises(ValueError, match="give pad="):
            self.run(fg.AutoregressiveProcess(4, 3))
        assert len(self.run(fg.AutoregressiveProcess(4, 3), guidance=fg.BestOfN()).samples) == 5

    def test_logits_of_a_wrong_shape_name_both_that_are_right(self):
        with pytest.raises(ValueError, match=r"\[5, 3\].*\[5, 4, 3\]"):
            self.run(fg.AutoregressiveProcess(4, 3, pad=0), denoiser=lambda x, t: torch.zeros(len(x), 4))

    @staticmethod
    def run(process, denoiser=lambda x, t: torch.zeros(len(x), 3), guidance=None, **options):
        settings = {"particles": 5, "progress": False, "memory": fg.Memory(merge=False)} | options
        return fg.sample(process, denoiser, lambda x: x.sum(1), guidance or fg.SMC(), **settings)
