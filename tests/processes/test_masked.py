"""The options of `MaskedProcess`: schedules, exact laws through the whole loop, errors."""

from __future__ import annotations

import math

import pytest
import torch

import fastguide as fg
from tests.oracle.masked import TabularMasked, total_variation

OPTIONS = [
    {"reveal": "count"},
    {"reveal": "count", "order": "confidence"},
    {"remask": 0.3},
    {"remask": 1.0, "schedule": "cosine"},
    {"reveal": "count", "remask": 0.3},
    {"reveal": "count", "order": "confidence", "remask": 0.3, "top_p": 0.8},
    {"top_k": 2},
    {"top_p": 0.7},
    {"top_k": 2, "top_p": 0.9, "reveal": "count"},
    {"schedule": "loglinear"},
]


def sample(oracle: TabularMasked, guidance: object, **options: object) -> fg.Result:
    settings = {"particles": 20_000, "progress": False} | options
    return fg.sample(oracle.process, oracle.denoiser, oracle.reward, guidance, **settings)  # type: ignore[arg-type]


class TestLaw:
    # 27 states, 20,000 draws: E[TV] ≈ 0.013; 0.03 is beyond 6 standard deviations.
    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_unguided_samples_follow_the_process_as_run(self, options: dict[str, object]) -> None:
        oracle = TabularMasked(options=options)
        result = sample(oracle, fg.BestOfN(alpha=0.0), seed=3)
        assert total_variation(oracle.frequencies(result.samples, result.log_weights), oracle.law()) < 0.03

    def test_one_position_a_step_is_the_table_itself(self) -> None:
        oracle = TabularMasked(steps=3, options={"reveal": "count"})
        assert total_variation(oracle.law(), oracle.log_joint.exp().flatten()) < 1e-6
        result = sample(oracle, fg.BestOfN(alpha=0.0))
        assert total_variation(oracle.frequencies(result.samples, result.log_weights), oracle.law()) < 0.03

    @pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[5]], ids=str)
    def test_guided_samples_follow_the_tilted_law(self, options: dict[str, object]) -> None:
        oracle = TabularMasked(options=options)
        target, log_z = oracle.target(1.0)
        result = sample(oracle, fg.SMC(alpha=1.0))
        assert total_variation(oracle.frequencies(result.samples, result.log_weights), target) < 0.05
        assert abs(result.log_normalizer - log_z) < 0.1


class TestSteps:
    @pytest.mark.parametrize("schedule", ["linear", "cosine", "loglinear"])
    @pytest.mark.parametrize("remask", [0.0, 0.05, 1.0])
    def test_expected_revealed_fraction_follows_the_schedule(self, schedule: str, remask: float) -> None:
        process = fg.MaskedProcess(length=4, vocab=3, steps=13, schedule=schedule, remask=remask)
        a = {"cosine": lambda t: math.cos(math.pi * t / 2)}.get(schedule, lambda t: 1 - t)
        fraction = 0.0
        for k in range(13):
            back, forth = process.remask_probabilities[k], process.reveal_probabilities[k]
            assert 0 <= back <= remask
            fraction = fraction * (1 - back) + (1 - fraction) * forth
            assert fraction == pytest.approx(a(process.times[k + 1]), abs=1e-12)
        assert process.reveal_probabilities[-1] == 1.0
        assert process.remask_probabilities[-1] == 0.0

    @pytest.mark.parametrize(("length", "steps"), [(7, 7), (7, 3), (3, 10), (1_000, 77)])
    def test_counts_add_up_to_the_free_positions(self, length: int, steps: int) -> None:
        process = fg.MaskedProcess(length=length, vocab=3, steps=steps, reveal="count", schedule="cosine")
        left = free = torch.tensor([length, length // 2, 0])
        for k in range(steps - 1):
            counts = process.reveal_counts(k, free)
            assert (counts >= 0).all()
            left = left - counts
        assert (left >= 0).all()
        assert (process.reveal_counts(steps - 1, free) >= left).all()
        one_by_one = fg.MaskedProcess(length=length, vocab=3, steps=length, reveal="count")
        assert all(int(one_by_one.reveal_counts(k, free)[0]) == 1 for k in range(length - 1))


class TestGiven:
    X_INIT = torch.tensor([4, 1, 4, 2, 4, 4])

    @pytest.mark.parametrize("options", [{"remask": 0.5}, {"remask": 1.0, "reveal": "count"}], ids=str)
    def test_given_tokens_stay(self, options: dict[str, object]) -> None:
        process = fg.MaskedProcess(length=6, vocab=4, steps=8, **options)  # type: ignore[arg-type]
        calls = []

        def denoiser(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            calls.append(x.clone())
            return torch.zeros(len(x), 6, 4)

        result = fg.sample(
            process,
            denoiser,
            lambda x: torch.zeros(len(x)),
            fg.SMC(alpha=1.0),
            x_init=self.X_INIT,
            particles=50,
            progress=False,
        )
        seen = torch.cat([*calls, result.samples])
        assert (seen[:, [1, 3]] == torch.tensor([1, 2])).all()
        assert (result.samples < 4).all()

    def test_counts_are_of_free_positions(self) -> None:
        process = fg.MaskedProcess(length=6, vocab=4, steps=4, reveal="count")
        masks = []

        def denoiser(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            masks.append((x == 4).sum(1).unique().tolist())
            return torch.zeros(len(x), 6, 4)

        fg.sample(
            process,
            denoiser,
            lambda x: torch.zeros(len(x)),
            fg.BestOfN(alpha=1.0),
            x_init=self.X_INIT,
            particles=9,
            progress=False,
        )
        assert masks == [[4], [3], [2], [1]]

    def test_remasking_needs_one_pattern(self) -> None:
        process = fg.MaskedProcess(length=2, vocab=3, remask=0.1)
        with pytest.raises(ValueError, match=r"x_init: .*same positions"):
            fg.sample(
                process,
                lambda x, t: torch.zeros(len(x), 2, 3),
                lambda x: torch.zeros(len(x)),
                fg.SMC(),
                x_init=torch.tensor([[0, 3], [3, 0]]),
                particles=2,
                progress=False,
            )


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"reveal": "some"}, ValueError, "reveal: unknown value 'some'.*independent, count"),
        ({"order": "best", "reveal": "count"}, ValueError, "order: unknown value 'best'.*random, confidence"),
        ({"order": "confidence"}, ValueError, 'order: .*needs reveal="count"'),
        ({"remask": 1.5}, ValueError, r"remask: .*\[0, 1\], got 1.5"),
        ({"remask": math.nan}, ValueError, "remask"),
        ({"top_k": 0}, ValueError, "top_k: .*got 0"),
        ({"top_k": 2.5}, TypeError, "top_k: .*2.5"),
        ({"top_p": 0.0}, ValueError, r"top_p: .*\(0, 1\], got 0.0"),
        ({"schedule": lambda t: 1.0 + t}, ValueError, "schedule"),
        ({"schedule": lambda t: (t - 0.5) ** 2}, ValueError, "schedule"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fg.MaskedProcess(length=3, vocab=3, **options)  # type: ignore[arg-type]
