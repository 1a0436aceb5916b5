"""The checks of `test_exact.py` fail on every mutant, so that they are known to see these faults."""

from __future__ import annotations

import pytest

from tests.mutants import MUTANTS, DroppedWeights, NoFinalCorrection, NoFirstWeight, OneBeta
from tests.oracle.checks import normalizer_is_unbiased, only_the_collapsed_group_is_resampled, samples_follow_the_target
from tests.oracle.masked import TabularMasked


def name(mutant):
    return type(mutant).__name__


@pytest.fixture(scope="module")
def oracle():
    return TabularMasked()


@pytest.mark.parametrize("mutant", MUTANTS, ids=name)
def test_the_normalizer_shows_it(oracle, mutant):
    with pytest.raises(AssertionError, match="mean Ẑ"):
        normalizer_is_unbiased(oracle, mutant)


@pytest.mark.parametrize(
    "mutant",
    # All values at the start are equal here, so a first weight left out changes Ẑ alone.
    [m for m in MUTANTS if type(m) is not NoFirstWeight and getattr(m, "potential", "") != "max_difference"],
    ids=name,
)
def test_the_samples_show_it(oracle, mutant):
    with pytest.raises(AssertionError, match="times the noise"):
        samples_follow_the_target(oracle, mutant)


def test_the_collapsed_group_shows_dropped_weights():
    with pytest.raises(AssertionError):
        only_the_collapsed_group_is_resampled(DroppedWeights())


@pytest.mark.parametrize(
    "mutant", [NoFirstWeight(value_steps=()), NoFinalCorrection(value_steps=()), OneBeta()], ids=name
)
def test_nothing_but_the_fault_tells_a_mutant_apart(oracle, mutant):
    """Where the fault has no occasion the mutant passes: the others fail of the fault, not of a broken mutant."""
    normalizer_is_unbiased(oracle, mutant)
