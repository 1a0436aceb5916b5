"""Alarms fire when they should, and only then."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fastguide.report.alarms import complexity_alarms, run_alarms, score_alarms
from fastguide.report.data import Role, Score, estimate
from tests.report.synthetic import UBIQUITIN, run_data


def score(role: Role, unguided: float, guided: float, *, better: str = "higher", spread: float = 1.0) -> Score:
    pattern = np.resize([-spread, spread], 32)
    return Score(
        name=role,
        role=role,
        better=better,  # type: ignore[arg-type]
        guided=guided + pattern,
        unguided=unguided + pattern,
    )


REWARD = score("reward", 85, 94)


def test_a_held_out_score_that_falls_while_the_reward_rises_is_an_alarm() -> None:
    (text,) = score_alarms([REWARD, score("held-out", 88, 84)])
    assert "held-out, which the run did not see, fell from 88.0" in text


def test_a_held_out_score_where_lower_is_better_alarms_when_it_rises() -> None:
    (text,) = score_alarms([REWARD, score("held-out", 1.2, 1.6, better="lower", spread=0.1)])
    assert "rose from 1.20" in text


@pytest.mark.parametrize(
    "scores",
    [
        [REWARD, score("held-out", 88, 90)],  # it rose too
        [REWARD, score("held-out", 88, 87.9)],  # it fell by less than two standard errors
        [score("reward", 85, 85.1), score("held-out", 88, 80)],  # the reward did not rise
        [REWARD, score("model", 88, 80)],  # not held out
        [REWARD, replace(score("held-out", 88, 80), unguided=None)],  # nothing to compare with
    ],
)
def test_no_alarm(scores: list[Score]) -> None:
    assert score_alarms(scores) == []


def test_collapsed_lineages_are_an_alarm() -> None:
    run = run_data(particles=512, steps=10)
    unique = run.unique_ancestors.copy()
    unique[-1] = 5
    (text,) = run_alarms(replace(run, unique_ancestors=unique))
    assert "Only 5 of the 512 particles" in text
    unique[-1] = 6
    assert run_alarms(replace(run, unique_ancestors=unique)) == []


def test_a_single_ancestor_is_an_alarm_however_few_the_particles() -> None:
    run = run_data(particles=8, steps=10)
    unique = run.unique_ancestors.copy()
    unique[-1] = 1
    (text,) = run_alarms(replace(run, unique_ancestors=unique))
    assert "Only 1 of the 8 particles of the first step has a descendant" in text


def test_weights_that_rest_on_one_sample_are_an_alarm() -> None:
    run = run_data()
    weights = np.full(run.particles, 0.01 / (run.particles - 1))
    weights[3] = 0.99
    (text,) = run_alarms(replace(run, weights=weights))
    assert f"1.0 effective samples of {run.particles}" in text


def test_repeated_samples_are_an_alarm() -> None:
    run = run_data()
    (text,) = run_alarms(replace(run, distinct=15))
    assert "Only 15 of the 32 samples are distinct" in text


def test_runs_and_low_complexity_are_alarms() -> None:
    found = complexity_alarms(["MK" * 20, "A" * 7 + UBIQUITIN], UBIQUITIN)
    assert any("longest: 7 A" in text for text in found)
    assert any("1 of 2 designs has a composition of low complexity (1.0 bits" in text for text in found)


def test_natural_sequences_and_natural_repeats_are_none() -> None:
    assert complexity_alarms([UBIQUITIN], UBIQUITIN) == []
    assert complexity_alarms(["GGGGGGGS" * 10], "GGGGGGGS" * 10) == []


def test_a_run_does_not_cross_from_one_chain_to_the_next() -> None:
    assert complexity_alarms([UBIQUITIN + "AAA/AAA" + UBIQUITIN]) == []


def test_weighted_mean_and_error_agree_with_the_plain_ones_for_equal_weights() -> None:
    values = np.array([1.0, 2.0, 4.0, 9.0])
    plain, weighted = estimate(values), estimate(values, np.full(4, 0.25))
    assert plain == pytest.approx(weighted)
    assert plain.error == pytest.approx(values.std(ddof=1) / 2)


def test_samples_of_one_lineage_count_as_one() -> None:
    values = np.repeat([1.0, 2.0, 4.0, 9.0], 25)
    lineages = np.repeat(np.arange(4), 25)
    assert estimate(values, ancestors=lineages).error == pytest.approx(estimate(values[::25]).error)
    assert estimate(values, ancestors=np.arange(100)) == pytest.approx(estimate(values))
    assert estimate(values, ancestors=np.zeros(100)) == pytest.approx(estimate(values))  # one lineage tells no spread


def test_infinite_values_and_zero_weights_do_not_count() -> None:
    values, weights = np.array([1.0, -np.inf, 5.0]), np.array([1.0, 1.0, 0.0])
    assert estimate(values, weights).mean == 1.0
