"""What a report draws, as plain arrays: no tensors and no models, so that any numbers make and test a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from fastguide.report.values import ValueData
    from fastguide.result import Result

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Role = Literal["reward", "part", "held-out", "model", "information"]


class Estimate(NamedTuple):
    """A mean and its standard error (nan for fewer than two samples)."""

    mean: float
    error: float


def estimate(values: Floats, weights: Floats | None = None, ancestors: Integers | None = None) -> Estimate:
    """Return the mean of ``values`` ``[n]`` under ``weights`` ``[n]`` (equal if None), and its standard error.

    Values that are not finite are left out. The error is that of the self-normalised mean, ``sqrt(Σ W² (x − mean)²)``,
    times ``sqrt(n/(n − 1))``, as if the samples were independent. Those that descend from one particle of the first step
    are not: where ``ancestors`` ``[n]`` says which do, the sum is also taken over lineages, ``sqrt(Σ_a (Σ_{i∈a} W_i (x_i −
    mean))²)`` (Chan and Lai 2013; Lee and Whiteley 2018), and the larger error is returned.
    """
    keep = np.isfinite(values)
    if weights is not None:
        keep &= weights > 0
    x = values[keep]
    if not len(x):
        return Estimate(math.nan, math.nan)
    w = np.ones(len(x)) if weights is None else weights[keep]
    w = w / w.sum()
    mean = float(w @ x)
    if len(x) < 2:
        return Estimate(mean, math.nan)
    deviations = w * (x - mean)
    variance = _sum_of_squares(deviations)
    if ancestors is not None:
        _, lineage = np.unique(ancestors[keep], return_inverse=True)
        if lineage.max() > 0:
            variance = max(variance, _sum_of_squares(np.bincount(lineage, weights=deviations).astype(np.float64)))
    return Estimate(mean, math.sqrt(variance))


def _sum_of_squares(deviations: Floats) -> float:
    return float(deviations @ deviations) * len(deviations) / (len(deviations) - 1)


@dataclass(frozen=True)
class Score:
    """One number a sample: the optimised reward, or one that the run did not see.

    Attributes:
        name: as shown.
        role: ``reward`` was optimised, ``part`` is a term of it, ``held-out`` was not seen by the run, ``model`` is the
            generating model's own, ``information`` is shown and never judged.
        better: ``higher``, ``lower``, or None.
        guided: ``[n]`` values of the guided samples.
        weights: ``[n]`` of the guided samples, None for equal ones.
        ancestors: ``[n]`` which particle of the first step each guided sample descends from, None if all differ.
        unguided: ``[m]`` equally weighted values of the unguided run, or None.
        native: value of the native, or None.
        unit: for axes.
    """

    name: str
    role: Role
    better: Literal["higher", "lower"] | None
    guided: Floats
    weights: Floats | None = None
    unguided: Floats | None = None
    native: float | None = None
    unit: str = ""
    ancestors: Integers | None = None

    @property
    def guided_mean(self) -> Estimate:
        """Weighted mean of the guided samples."""
        return estimate(self.guided, self.weights, self.ancestors)

    @property
    def unguided_mean(self) -> Estimate | None:
        """Mean of the unguided samples."""
        return None if self.unguided is None else estimate(self.unguided)

    @property
    def gain(self) -> Estimate | None:
        """Guided minus unguided mean, positive where guided is better (or larger, if neither direction is)."""
        before = self.unguided_mean
        if before is None:
            return None
        after = self.guided_mean
        sign = -1.0 if self.better == "lower" else 1.0
        return Estimate(sign * (after.mean - before.mean), math.hypot(after.error, before.error))

    @property
    def label(self) -> str:
        """Name with its unit."""
        return f"{self.name} ({self.unit})" if self.unit else self.name


@dataclass(frozen=True)
class RunData:
    """A run, as far as a report shows it. T steps, G groups, N particles.

    Attributes:
        guidance: the algorithm with its settings, one line.
        particles: N. groups: G. branch: children a particle. steps: T.
        alpha: temperature of the tilt.
        ess: ``[T, G]``. resampled: ``[T, G]`` bool.
        unique_ancestors: ``[T, G]``.
        values_mean: ``[T, G]``. values_max: ``[T, G]``.
        denoiser_rows: ``[T]``. reward_rows: ``[T]``. recomputed_rows: ``[T]``.
        seconds_denoiser: ``[T]``. seconds_reward: ``[T]``. seconds_other: ``[T]``.
        parents: ``[T, N]`` parents' slots in group 0. roots: ``[G·N]`` particle of the first step each sample descends from.
        rewards: ``[G·N]``. weights: ``[G·N]``, summing to 1.
        distinct: distinct samples among those of nonzero weight.
        log_normalizer: text of the estimate.
        seconds: wall time.
        uses_values: whether values were computed on the way.
        ess_threshold: fraction of N below which a group resamples, or None.
    """

    guidance: str
    particles: int
    groups: int
    branch: int
    alpha: float
    ess: Floats
    resampled: NDArray[np.bool_]
    unique_ancestors: Integers
    values_mean: Floats
    values_max: Floats
    denoiser_rows: Integers
    reward_rows: Integers
    recomputed_rows: Integers
    seconds_denoiser: Floats
    seconds_reward: Floats
    seconds_other: Floats
    parents: Integers
    roots: Integers
    rewards: Floats
    weights: Floats
    distinct: int
    log_normalizer: str
    seconds: float
    uses_values: bool = True
    ess_threshold: float | None = None

    @property
    def steps(self) -> int:
        """T."""
        return len(self.ess)

    @property
    def per_particle(self) -> bool:
        """Whether every particle selects among its own children, so that resampling of the group has no meaning."""
        return self.branch > 1

    @property
    def ess_samples(self) -> float:
        """Effective number of the weighted samples."""
        return float(1.0 / (self.weights**2).sum()) if self.weights.any() else 0.0

    @classmethod
    def from_result(cls, result: Result) -> RunData:
        """Read a `fastguide.Result`."""
        trace, steps = result.trace, result.guidance.value_steps

        def column(name: str) -> Any:
            return getattr(trace, name).cpu().numpy()

        log_weights = result.log_weights.cpu().numpy()
        top = log_weights.max()
        raw = np.exp(log_weights - top) if np.isfinite(top) else np.zeros_like(log_weights)
        alive = result.samples[result.log_weights > -math.inf]
        seconds, denoiser, reward = column("seconds"), column("seconds_denoiser"), column("seconds_reward")
        return cls(
            guidance=repr(result.guidance),
            particles=result.particles,
            groups=result.groups,
            branch=result.guidance.branch,
            alpha=float(result.guidance.alpha),
            ess=column("ess"),
            resampled=column("resampled"),
            unique_ancestors=column("unique_ancestors"),
            values_mean=column("values_mean"),
            values_max=column("values_max"),
            denoiser_rows=column("denoiser_rows"),
            reward_rows=column("reward_rows"),
            recomputed_rows=column("recomputed_rows"),
            seconds_denoiser=denoiser,
            seconds_reward=reward,
            seconds_other=np.maximum(0.0, seconds - denoiser - reward),
            parents=result.ancestry.parents[:, 0].cpu().numpy(),
            roots=roots_of(result),
            rewards=result.rewards.cpu().numpy(),
            weights=raw / raw.sum() if raw.sum() > 0 else raw,
            distinct=len({row.tobytes() for row in alive.cpu().numpy()}),
            log_normalizer=str(result.log_normalizer),
            seconds=result.seconds,
            uses_values=steps is None or any(k in steps for k in range(len(result.trace))),
            ess_threshold=getattr(result.guidance, "ess_threshold", None),
        )


def roots_of(result: Result) -> Integers:
    """Return ``[G·N]`` the particle of the first step that each sample descends from, numbered over all groups."""
    roots = result.ancestry.roots.cpu().numpy()
    return np.asarray(roots + np.arange(len(roots))[:, None] * roots.shape[1], dtype=np.int64).reshape(-1)


@dataclass(frozen=True)
class Entry:
    """A row of the table of best samples.

    Attributes:
        rank: from 1; 0 for the native, which shows its name instead. name: its name in the files.
        sequence: letters without chain separators, or any text.
        values: name to number, in the order of the columns; None shows as a dash.
    """

    rank: int
    name: str
    sequence: str
    values: Mapping[str, float | None]


@dataclass(frozen=True)
class Positions:
    """The residues of the designed chains, column by column.

    Attributes:
        labels: author labels. chains: author chain of each. native: letters, ``X`` unknown. kept: not designed.
    """

    labels: tuple[str, ...]
    chains: tuple[str, ...]
    native: str
    kept: tuple[bool, ...]

    @property
    def blocks(self) -> list[range]:
        """Stretches of at most ten columns that do not cross from one chain to the next."""
        found, start = [], 0
        for i in range(1, len(self.chains) + 1):
            if i == len(self.chains) or self.chains[i] != self.chains[start] or i - start == 10:
                found.append(range(start, i))
                start = i
        return found


@dataclass(frozen=True)
class ProteinData:
    """What the protein sections draw beside the run.

    Attributes:
        positions: the columns.
        guided: ``[n, R]`` tokens in 0..19 of the guided samples. weights: ``[n]``.
        unguided: ``[m, R]`` tokens of the unguided run.
        entries: the designs, best first. native: the native beside them, or None.
        median_distance: median Hamming distance between the designs. unguided_distance: between unguided samples.
    """

    positions: Positions
    guided: Integers
    weights: Floats
    unguided: Integers
    entries: Sequence[Entry]
    median_distance: float
    unguided_distance: float
    native: Entry | None = None


@dataclass(frozen=True)
class ReportData:
    """A whole report.

    Attributes:
        title: heading. subtitle: the line under it.
        run: the guided run. unguided: the run beside it, or None.
        scores: the reward first.
        warnings: plain sentences.
        notes: sentences that are no alarm.
        entries: the best samples.
        protein: for protein design, or None.
        values: how good the values were, or None.
        settings: name to value, in order.
        manifest: name to value, in order.
        command: how to run it again, or None.
    """

    title: str
    subtitle: str
    run: RunData
    unguided: RunData | None
    scores: Sequence[Score]
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    entries: Sequence[Entry] = ()
    protein: ProteinData | None = None
    values: ValueData | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    manifest: dict[str, Any] = field(default_factory=dict)
    command: str | None = None
