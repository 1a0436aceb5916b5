"""What a run gives: weighted samples and how they came about."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastguide import export, ops
from fastguide.ancestry import Ancestry
from fastguide.errors import DegenerateWeights
from fastguide.guidance.protocol import Guidance
from fastguide.ops._checks import count
from fastguide.population import Diversity, diversity, pareto_front
from fastguide.reference.exp import MAX_LOG_WEIGHT
from fastguide.reference.philox import Stream, expand_seed
from fastguide.trace import Trace

if TYPE_CHECKING:
    from fastguide.calibration import Calibration


class LogNormalizer(float):
    """An estimate of ``log E_p[exp(r / alpha)]``: a float that knows its error.

    Attributes:
        groups: ``[G]`` float64 estimates of the groups. Replicates combine as the log of the mean of their normalisers.
        standard_error: of the log, from the spread between replicates (delta method); nan for a single group.
        agreement: ``(Σ Z_g)² / (G Σ Z_g²)``: 1 where all replicates agree, 1/G where one of them is all of the estimate.
        reason: why the value is nan, or None.
    """

    groups: Tensor
    standard_error: float
    agreement: float
    reason: str | None

    def __new__(cls, groups: Tensor, reason: str | None = None) -> LogNormalizer:
        """Combine the estimates of replicates."""
        count = len(groups)
        log_mean = math.nan if reason else float(torch.logsumexp(groups, 0)) - math.log(count)
        self = super().__new__(cls, log_mean)
        self.groups, self.reason, self.standard_error, self.agreement = groups, reason, math.nan, math.nan
        if count > 1 and math.isfinite(log_mean):
            ratios = torch.exp(groups - log_mean)
            self.standard_error = float(ratios.std()) / math.sqrt(count)
            self.agreement = float(ratios.sum() ** 2 / (count * (ratios**2).sum()))
        return self

    def __getnewargs__(self) -> tuple[Tensor, str | None]:  # type: ignore[override]
        return self.groups, self.reason

    def __repr__(self) -> str:
        if self.reason:
            return f"nan ({self.reason})"
        return f"{float(self):.6g}" + ("" if math.isnan(self.standard_error) else f" ± {self.standard_error:.2g}")

    __str__ = __repr__


def as_they_are(x0: Tensor) -> Tensor:
    """Decode samples to themselves."""
    return x0


@dataclass
class Result:
    """Samples of a guided run. They are WEIGHTED: use `draw` for equally weighted ones, `best` for the highest rewards.

    A Result can be pickled and copied; the copy has no model, so it cannot `replay`, and it decodes to tokens.

    Attributes:
        samples: ``[G·N, *shape]`` clean states (``[G·N, L]`` int64 tokens), groups one after the other.
        log_weights: ``[G·N]`` float64 unnormalised; their mean (of exp) over a group estimates ``E_p[exp(r / alpha)]`` for
            guidance that estimates it. −inf: never drawn, never among the best.
        rewards: ``[G·N]`` float64.
        log_normalizer: a `LogNormalizer`.
        trace: a `Trace`, step by step.
        ancestry: an `Ancestry`.
        seeds: ``[G]`` int64, the seed of each group; running a group alone with it gives the same samples.
        guidance: the settings of the algorithm.
        lengths: ``[G]`` int64 or None: positions of each group, the rest of a row is padding.
        problems: per group, which (condition, reward, length) it had; groups of one problem are replicates.
        seconds: wall time of the run.
        decode: per group, what turned its clean rows into what the reward saw.
        alpha: temperature of the target that the weights are for; inf: the pretrained model itself.
        provenance: what the caller of `fastguide.sample` wants in the `manifest` (hashes of weights, names), as plain data.
    """

    samples: Tensor
    log_weights: Tensor
    rewards: Tensor
    log_normalizer: LogNormalizer
    trace: Trace
    ancestry: Ancestry
    seeds: Tensor
    guidance: Guidance
    lengths: Tensor | None
    problems: tuple[int, ...]
    seconds: float
    decode: tuple[Callable[[Tensor], Any], ...] = field(repr=False)
    _replay: Callable[[int, int], Tensor] | None = field(repr=False)
    alpha: float = math.nan
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if math.isnan(self.alpha):
            self.alpha = float(self.guidance.alpha)

    def __getstate__(self) -> dict[str, Any]:
        # The model and what decodes its samples stay behind: they may be large, and functions often cannot be pickled.
        return {**self.__dict__, "_replay": None, "decode": (as_they_are,) * self.groups}

    @property
    def particles(self) -> int:
        """N; of guidance that iterates, the samples a group of all iterations that are kept."""
        return len(self.samples) // self.groups

    @property
    def groups(self) -> int:
        """G."""
        return self.ancestry.groups

    @property
    def denoiser_rows(self) -> int:
        """States that the denoiser was asked for in the whole run."""
        return sum(step.denoiser_rows for step in self.trace)

    @property
    def reward_rows(self) -> int:
        """Samples that the reward evaluated in the whole run."""
        return sum(step.reward_rows for step in self.trace)

    def _members(self, group: int | None) -> Tensor:
        n = self.particles
        if group is None:
            if len(set(self.problems)) > 1:
                raise ValueError("group: the groups have different conditions; say which, 0 <= group < groups")
            return torch.arange(self.groups * n, device=self.samples.device)
        if not 0 <= group < self.groups:
            raise ValueError(f"group: expected 0 <= group < {self.groups}, got {group}")
        return torch.arange(group * n, (group + 1) * n, device=self.samples.device)

    def _cut(self, rows: Tensor, group: int | None) -> Tensor:
        return rows if self.lengths is None else rows[:, : int(self.lengths[group or 0])]

    def draw_indices(self, k: int, *, group: int | None = None, seed: int = 0) -> Tensor:
        """Return ``[k]`` indices into ``samples``, drawn systematically by weight and in random order."""
        members = self._members(group)
        log_weights = self.log_weights[members]
        if not bool((log_weights >= -MAX_LOG_WEIGHT).any()):
            which = "every sample" if group is None else f"every sample of group {group}"
            raise DegenerateWeights(f"draw: {which} has weight zero; there is nothing to draw", (group or 0,))
        picked = ops.select(log_weights, k, seed=seed).ancestors.to(torch.int64)
        # Systematic draws come sorted; shuffled, any prefix of them is a fair draw too.
        scores = torch.zeros(k, dtype=torch.float64, device=log_weights.device)
        shuffle_seed = int(expand_seed(seed, 1)[0])
        shuffle = ops.select(scores, k, rule="gumbel_topk", seed=shuffle_seed, step=int(Stream.USER)).ancestors
        return members[picked[shuffle.to(torch.int64)]]

    def draw(self, k: int, *, group: int | None = None, seed: int = 0) -> Tensor:
        """Return ``[k, L]`` equally weighted samples, drawn from the weighted ones (with repeats where weights ask for it).

        Args:
            k: how many.
            group: which group; None pools replicates by their normalisers.
            seed: of this drawing.
        """
        return self._cut(self.samples[self.draw_indices(k, group=group, seed=seed)], group)

    def best_indices(self, k: int, *, group: int | None = None) -> Tensor:
        """Return the indices into ``samples`` of the (at most) ``k`` distinct samples of highest reward, best first."""
        k = count("k", k)
        members = self._members(group)
        members = members[self.log_weights[members] > -torch.inf]
        distinct = members[ops.unique(self.samples[members]).representatives]
        order = torch.argsort(self.rewards[distinct], descending=True, stable=True)
        return distinct[order[:k]]

    def best(self, k: int, *, group: int | None = None) -> Tensor:
        """Return ``[≤ k, L]`` distinct samples of highest reward and nonzero weight, best first."""
        return self._cut(self.samples[self.best_indices(k, group=group)], group)

    def replay(self, i: int) -> Tensor:
        """Return ``[T + 1, L]``: the trajectory of sample ``i``, from noise to data, drawn again from seed and ancestry."""
        if not 0 <= i < len(self.samples):
            raise ValueError(f"i: expected 0 <= i < {len(self.samples)}, got {i}")
        if self._replay is None:
            raise RuntimeError("replay: this Result was pickled, and the model is not kept; replay before pickling")
        group, particle = divmod(i, self.particles)
        return self._cut(self._replay(group, particle), group)

    def effective_samples(self) -> Tensor:
        """Return ``[G]`` float64: how many equally weighted samples the weights of each group are worth (their ESS)."""
        logs = self.log_weights.view(self.groups, -1)
        return ops.select(logs, 1, degenerate="keep").ess

    def reweight(self, alpha: float) -> Result:
        """Return the same samples weighted for another temperature; ``math.inf`` gives the pretrained model back.

        Far from the temperature of the run few samples carry the weight: see `effective_samples`. Samples that a hard
        constraint forbids are not among them, so the pretrained model is recovered as restricted to the constraint.

        Raises:
            ValueError: the guidance gives no weights, or ``alpha`` is not positive.
        """
        if not self.guidance.estimates_normalizer:
            raise ValueError(f"alpha: {type(self.guidance).__name__} gives no weights that could be changed")
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not alpha > 0:
            raise ValueError(f"alpha: expected a positive number or math.inf, got {alpha!r}")
        rewards = torch.where(self.rewards > -torch.inf, self.rewards, 0.0)
        log_weights = self.log_weights + rewards * (1.0 / alpha - 1.0 / self.alpha)
        estimates = torch.logsumexp(log_weights.view(self.groups, -1), 1) - math.log(self.particles)
        normalizer = LogNormalizer(estimates, self.log_normalizer.reason)
        return replace(self, log_weights=log_weights, log_normalizer=normalizer, alpha=float(alpha))

    def diversity(self, *, group: int | None = None, seed: int = 0) -> Diversity:
        """Return how varied the samples are (of one group, or of all where they have one problem)."""
        members = self._members(group)
        roots = self.ancestry.roots if group is None else self.ancestry.roots[group : group + 1]
        ancestors = sum(len(torch.unique(row)) for row in roots)
        return diversity(self._cut(self.samples[members], group), self.log_weights[members], ancestors, seed)

    def pareto(
        self, objectives: Tensor | Sequence[Callable[[Any], Any]], *, group: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the distinct samples that no other beats in all objectives.

        Args:
            objectives: rewards, each called on the decoded samples; or their values ``[G·N, K]``. Larger is better.
            group: which group; None takes the replicates together.

        Returns:
            indices ``[k]`` into ``samples``, and the objectives ``[k, K]`` of those.
        """
        members = self._members(group)
        members = members[self.log_weights[members] > -torch.inf]
        members = members[ops.unique(self.samples[members]).representatives]
        if isinstance(objectives, Tensor):
            if objectives.ndim != 2 or len(objectives) != len(self.samples):
                raise ValueError(f"objectives: expected shape [{len(self.samples)}, K], got {list(objectives.shape)}")
            values = objectives[members].double()
        else:
            seen = self.decode[group or 0](self._cut(self.samples[members], group))
            values = torch.stack([torch.as_tensor(f(seen), dtype=torch.float64) for f in objectives], 1)
        front = pareto_front(values)
        return members[front], values[front]

    def manifest(self) -> dict[str, Any]:
        """Return settings, seeds, sizes, counts and versions as plain data, for a file beside the samples."""
        return export.manifest(self)

    def to_dataframe(self) -> Any:
        """Return a ``pandas.DataFrame``, one row a sample; ``result.trace.to_dataframe()`` has the steps."""
        return export.to_dataframe(self)

    def to_arviz(self, *, seed: int = 0) -> Any:
        """Return ``arviz.InferenceData``: a chain a group, equally weighted draws."""
        return export.to_arviz(self, seed)

    def save(self, path: str | Path) -> Path:
        """Write the result to one file (no model, no code in it); `fastguide.load` reads it."""
        return export.save(self, path)

    def report(
        self,
        path: str | Path,
        *,
        unguided: Result | None = None,
        calibration: Calibration | None = None,
        title: str = "Guided run",
        reward: str = "reward",
    ) -> Path:
        """Write the run as one self-contained HTML file and return its path.

        Args:
            path: of the file; it is replaced if it exists.
            unguided: the same process without guidance, drawn beside it.
            calibration: of the values, as `fastguide.calibrate` found them.
            title: heading.
            reward: name of the reward.
        """
        from fastguide.report import result_report

        return result_report(self, path, unguided=unguided, calibration=calibration, title=title, reward=reward)

    def __repr__(self) -> str:
        finite = self.rewards[self.log_weights > -torch.inf]
        mean = float(finite.mean()) if len(finite) else math.nan
        return (
            f"Result({self.groups} × {self.particles} samples by {type(self.guidance).__name__}, mean reward {mean:.4g}, "
            f"log normalizer {self.log_normalizer!r}, {self.denoiser_rows} denoiser rows, {self.reward_rows} reward rows, "
            f"{self.seconds:.1f} s)"
        )
