"""Guidances side by side at equal cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from fastguide import ops
from fastguide.budget import Budget
from fastguide.export import needed
from fastguide.guidance.protocol import Guidance
from fastguide.memory import resolve_memory
from fastguide.ops._checks import count
from fastguide.result import Result
from fastguide.sample import sample

_PILOT = 32
"""Particles of the run that tells how many rows a particle costs."""
_T95 = (
    12.71,
    4.30,
    3.18,
    2.78,
    2.57,
    2.45,
    2.36,
    2.31,
    2.26,
    2.23,
    2.20,
    2.18,
    2.16,
    2.14,
    2.13,
    2.12,
    2.11,
    2.10,
    2.09,
)
"""97.5 % quantiles of Student's t with 1, 2, … degrees of freedom; beyond, those of the normal law serve."""


@dataclass(frozen=True)
class Estimate:
    """A mean over replicates and the half width of its 95 % confidence interval (nan for a single replicate)."""

    mean: float
    half_width: float

    def __str__(self) -> str:
        return f"{self.mean:.4g}" if math.isnan(self.half_width) else f"{self.mean:.4g} ± {self.half_width:.2g}"


@dataclass(frozen=True)
class Row:
    """A guidance at a budget.

    Attributes:
        name: of the guidance. budget: what each replicate was allowed.
        particles: N, as many as the budget pays for.
        mean_reward: of equally weighted samples. best_reward: of the best sample.
        distinct: share of distinct samples among as many draws by weight as there are particles.
        denoiser_rows, reward_rows, seconds: of one replicate, on average.
    """

    name: str
    budget: Budget
    particles: int
    mean_reward: Estimate
    best_reward: Estimate
    distinct: Estimate
    denoiser_rows: float
    reward_rows: float
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """What `compare` found: ``rows``, a table when printed, and a plot."""

    rows: tuple[Row, ...]

    def __str__(self) -> str:
        head = ("guidance", "budget", "particles", "mean reward", "best reward", "distinct", "denoiser rows",
                "reward rows", "seconds")  # fmt: skip
        lines = [head, *(self._cells(row) for row in self.rows)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
        written = [" | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
        rule = "-|-".join("-" * w for w in widths)
        return "\n".join(f"| {line} |" for line in (written[0], rule, *written[1:]))

    def to_dataframe(self) -> Any:
        """Return a ``pandas.DataFrame``, one row a guidance and budget."""
        records = []
        for row in self.rows:
            record = {**vars(row), "budget": _written(row.budget)}
            for name in ("mean_reward", "best_reward", "distinct"):
                record[name] = getattr(row, name).mean
                record[f"{name}_half_width"] = getattr(row, name).half_width
            records.append(record)
        return needed("pandas", "to_dataframe").DataFrame(records)

    def plot(self, path: str | Path, *, reward: str = "mean_reward") -> Path:
        """Draw the reward against the rows spent, a line a guidance, with 95 % intervals; return the path of the picture.

        Args:
            path: of the file; its ending says the format.
            reward: ``"mean_reward"`` or ``"best_reward"``.
        """
        if reward not in ("mean_reward", "best_reward"):
            raise ValueError(f"reward: expected 'mean_reward' or 'best_reward', got {reward!r}")
        needed("matplotlib", "plot")
        from matplotlib.figure import Figure

        spent = "reward_rows" if any(row.budget.reward_rows for row in self.rows) else "denoiser_rows"
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for name in dict.fromkeys(row.name for row in self.rows):
            rows = sorted((row for row in self.rows if row.name == name), key=lambda row: getattr(row, spent))
            estimates = [getattr(row, reward) for row in rows]
            errors = [0.0 if math.isnan(e.half_width) else e.half_width for e in estimates]
            x, y = [getattr(row, spent) for row in rows], [e.mean for e in estimates]
            axes.errorbar(x, y, errors, marker="o", markersize=4, linewidth=1.5, capsize=3, label=name)
        axes.set_xscale("log")
        axes.set_xlabel(f"{spent.replace('_', ' ')} a run")
        axes.set_ylabel(reward.replace("_", " "))
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
        figure.savefig(path, dpi=150)
        return Path(path)

    @staticmethod
    def _cells(row: Row) -> tuple[str, ...]:
        return (row.name, _written(row.budget), str(row.particles), str(row.mean_reward), str(row.best_reward),
                str(row.distinct), f"{row.denoiser_rows:,.0f}", f"{row.reward_rows:,.0f}", f"{row.seconds:.2g}")  # fmt: skip


def compare(
    process: Any,
    denoiser: Any,
    reward: Callable[..., Any],
    guidances: Mapping[str, Guidance] | Sequence[Guidance],
    *,
    budget: Budget | Sequence[Budget],
    replicates: int = 5,
    seed: int = 0,
    progress: Callable[[str], object] | None = None,
    **options: Any,
) -> Comparison:
    """Run each guidance with as many particles as a budget pays for, several times over, and compare the samples.

    How many rows a particle costs is found by a small run of each guidance; where equal states are merged, larger runs cost
    less than that, never more. Every replicate is held to the budget.

    Args:
        process, denoiser, reward: as for `fastguide.sample`.
        guidances: ``{name: guidance}``, or a list of them, named by their classes.
        budget: what each replicate may spend; several give a curve.
        replicates: runs a guidance and budget, with seeds of their own.
        seed: of the first replicate.
        progress: called with a line of text before each guidance.
        options: further arguments of `fastguide.sample`, but not ``particles``, ``groups`` or ``seed``.

    Raises:
        ValueError: a budget limits neither kind of row, or does not pay for a single particle of a guidance.
    """
    budgets = (budget,) if isinstance(budget, Budget) else tuple(budget)
    if not budgets or any(b.denoiser_rows is None and b.reward_rows is None for b in budgets):
        raise ValueError("budget: expected fg.Budget(...) with denoiser_rows or reward_rows, or several of them")
    refused = {"particles", "groups", "seed", "budget"} & options.keys()
    if refused:
        raise TypeError(f"{', '.join(sorted(refused))}: compare chooses these itself")
    replicates = count("replicates", replicates)
    # A replicate must pay for its own rows.
    memory = replace(resolve_memory(options.pop("memory", "auto")), remember=True)
    rows = []
    for name, guidance in _named(guidances).items():
        run = _Runner(process, denoiser, reward, guidance, {"progress": False, "memory": memory, **options})
        for allowed in budgets:
            particles = run.particles(allowed, seed)
            if progress is not None:
                progress(f"{name}: {particles} particles for {_written(allowed)}")
            rows.append(_row(name, allowed, [run(particles, seed + k, allowed) for k in range(replicates)]))
    return Comparison(tuple(rows))


class _Runner:
    def __init__(self, process: Any, denoiser: Any, reward: Any, guidance: Guidance, options: dict[str, Any]) -> None:
        self.guidance, self.options, self.steps = guidance, options, process.steps
        self._model = (process, denoiser, reward)
        self._rates: tuple[float, float] | None = None

    def __call__(self, particles: int, seed: int, budget: Budget | None = None) -> Result:
        return sample(*self._model, self.guidance, particles=particles, seed=seed, budget=budget, **self.options)

    def particles(self, budget: Budget, seed: int) -> int:
        """Return how many particles a budget pays for."""
        if self._rates is None:
            pilot = self(_PILOT, seed)
            self._rates = pilot.denoiser_rows / _PILOT, pilot.reward_rows / _PILOT
        found = []
        # A run must afford its unguided form, whatever it saves by merging: T denoiser rows a particle, M rewards.
        floors = (float(self.steps), float(self.guidance.branch))
        limits = (budget.denoiser_rows, budget.reward_rows)
        for limit, rate, floor in zip(limits, self._rates, floors, strict=True):
            if limit is not None:
                found.append(int(limit / max(rate, floor)))
        if min(found) < 1:
            raise ValueError(f"budget: {_written(budget)} does not pay for one particle of {self.guidance!r}")
        return min(found)


def _row(name: str, budget: Budget, results: list[Result]) -> Row:
    n = len(results)
    mean, best, distinct = [], [], []
    for result in results:
        drawn = result.draw_indices(result.particles)
        mean.append(float(result.rewards[drawn].mean()))
        best.append(float(result.rewards[result.log_weights > -torch.inf].max()))
        distinct.append(len(ops.unique(result.samples[drawn]).representatives) / len(drawn))
    return Row(
        name, budget, results[0].particles, _estimate(mean), _estimate(best), _estimate(distinct),
        sum(r.denoiser_rows for r in results) / n, sum(r.reward_rows for r in results) / n,
        sum(r.seconds for r in results) / n,
    )  # fmt: skip


def _estimate(values: list[float]) -> Estimate:
    numbers = torch.tensor(values, dtype=torch.float64)
    n = len(values)
    if n == 1:
        return Estimate(values[0], math.nan)
    quantile = _T95[n - 2] if n - 2 < len(_T95) else 1.96 + 2.4 / (n - 1)
    return Estimate(float(numbers.mean()), quantile * float(numbers.std()) / math.sqrt(n))


def _named(guidances: Mapping[str, Guidance] | Sequence[Guidance]) -> dict[str, Guidance]:
    if isinstance(guidances, Mapping):
        return dict(guidances)
    names = [type(g).__name__ for g in guidances]
    again = {name for name in names if names.count(name) > 1}
    return {repr(g) if name in again else name: g for name, g in zip(names, guidances, strict=True)}


def _written(budget: Budget) -> str:
    parts = [f"{v:,} {n.replace('_', ' ')}" for n, v in vars(budget).items() if v is not None]
    return ", ".join(parts)
