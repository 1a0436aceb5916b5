"""What should make a user doubt a run, in plain sentences.

The thresholds are conventions, named here. A score counts as changed when it moved by more than two standard errors.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from fastguide.report.data import Estimate, RunData, Score
from fastguide.report.diversity import entropy, longest_run
from fastguide.report.numbers import show_estimate

STANDARD_ERRORS = 2.0
LEAST_ANCESTORS = 0.01
"""Share of the particles of the first step that should have a descendant; and a single one is too few of any number."""
LEAST_ESS = 2.0
"""Effective samples below which one sample is most of every mean, and its standard error means nothing."""
LEAST_DISTINCT = 0.5
"""Share of the samples that should differ from all others."""
LONGEST_RUN = 6
"""A stretch of one amino acid this long is rare in natural proteins."""
LEAST_ENTROPY = 3.0
"""Bits of the composition; natural proteins have about 4.2; 3 is that of eight amino acids in equal parts."""
SHORTEST_FOR_ENTROPY = 30
"""Residues below which the entropy of a composition says little."""


def score_alarms(scores: Sequence[Score]) -> list[str]:
    """Warn where the optimised reward rose and a held-out score got worse."""
    reward = next((s for s in scores if s.role == "reward"), None)
    if reward is None or reward.gain is None or not _beyond(reward.gain.mean, reward.gain.error):
        return []
    found = []
    for score in scores:
        gain = score.gain
        if score.role != "held-out" or gain is None or not _beyond(-gain.mean, gain.error):
            continue
        before, after = score.unguided_mean, score.guided_mean
        verb = "rose" if score.better == "lower" else "fell"
        found.append(
            f"{reward.name} rose from {_show(reward.unguided_mean)} to {_show(reward.guided_mean)}, but {score.name}, "
            f"which the run did not see, {verb} from {_show(before)} to {_show(after)}. The designs may exploit "
            "weaknesses of the reward: use a larger alpha, or add the held-out score to the reward."
        )
    return found


def run_alarms(run: RunData) -> list[str]:
    """Warn of lost lineages, repeated samples and uneven weights."""
    found = []
    ancestors = run.unique_ancestors[-1] / run.particles
    if run.particles > 1 and ((ancestors < LEAST_ANCESTORS) | (run.unique_ancestors[-1] == 1)).any():
        worst = int(run.unique_ancestors[-1].min())
        remedy = "Use a larger alpha, more" if run.alpha > 0 else "Use more"
        found.append(
            f"Only {worst} of the {run.particles:,} particles of the first step "
            f"{'has' if worst == 1 else 'have'} a descendant among the samples: lineages collapsed, and the "
            f"samples are close relatives. {remedy} particles, or SVDD, whose particles do not compete."
        )
    if run.particles > 1 and run.ess_samples < LEAST_ESS:
        found.append(
            f"The weights leave {run.ess_samples:.1f} effective samples of {run.particles:,}: the weighted means and "
            "their errors rest on hardly more than one sample. Use a larger alpha or more particles."
        )
    alive = int((run.weights > 0).sum())
    if alive and run.distinct < LEAST_DISTINCT * alive:
        found.append(
            f"Only {run.distinct:,} of the {alive:,} samples are distinct. Use a larger alpha or a higher temperature."
        )
    return found


def complexity_alarms(sequences: Iterable[str], native: str | None = None) -> list[str]:
    """Warn of sequences with a long run of one letter, or of few kinds of letters; what the native has is no alarm.

    Args:
        sequences: letters of each design, chains separated by ``/``.
        native: letters of the native, or None.
    """
    longest, which, runs, simple, lowest, count = 0, "", 0, 0, math.inf, 0
    own_run = max((longest_run(c)[0] for c in native.split("/")), default=0) if native else 0
    own_entropy = entropy(native.replace("/", "")) if native else math.inf
    for sequence in sequences:
        count += 1
        length, letter = max((longest_run(chain) for chain in sequence.split("/")), default=(0, ""))
        if length >= LONGEST_RUN and length > own_run:
            runs += 1
            longest, which = max((longest, which), (length, letter))
        letters = sequence.replace("/", "")
        bits = entropy(letters)
        if len(letters) >= SHORTEST_FOR_ENTROPY and bits < min(LEAST_ENTROPY, own_entropy):
            simple += 1
            lowest = min(lowest, bits)
    found = []
    if runs:
        found.append(
            f"{_of(runs, count)} a run of {LONGEST_RUN} or more equal residues (longest: {longest} {which}). Such "
            f"stretches are often disordered or aggregate: bias against {which}, or raise the temperature."
        )
    if simple:
        found.append(
            f"{_of(simple, count)} a composition of low complexity ({lowest:.1f} bits at the lowest; natural proteins "
            "have about 4.2). Bias against the most frequent residues, or use a larger alpha."
        )
    return found


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole} designs {'has' if part == 1 else 'have'}"


def _beyond(gain: float, error: float) -> bool:
    return gain > STANDARD_ERRORS * (0.0 if math.isnan(error) else error) and gain > 0


def _show(value: Estimate | None) -> str:
    return " ".join(show_estimate(value)).strip()
