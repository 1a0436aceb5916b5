"""How good values are: what a look-ahead said of states against the rewards that the states came to, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastguide.export import needed
from fastguide.guidance.smc import SMC
from fastguide.memory import resolve_memory
from fastguide.processes.protocol import Constraints, Process
from fastguide.run import Run
from fastguide.values.draws import soft_mean
from fastguide.values.posterior_mean import PosteriorMean
from fastguide.values.protocol import Value


@dataclass(frozen=True)
class Calibrated:
    """The values of one step.

    Attributes:
        step: steps taken. time: noise level.
        correlation: of values and realised rewards; nan where all values are equal.
        slope: of the rewards on the values (least squares): 1 for the mean value, below 1 for one that promises too much.
        bias: soft mean of the values less that of the rewards, both at alpha: 0 for the exact value.
    """

    step: int
    time: float
    correlation: float
    slope: float
    bias: float


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` found: ``steps``, a table when printed, and a plot.

    Attributes:
        steps: one `Calibrated` a step, of the states after steps 1 to T − 1.
        values: ``[T − 1, n]`` float64. rewards: ``[n]``. alpha: temperature.
    """

    steps: tuple[Calibrated, ...]
    values: Tensor
    rewards: Tensor
    alpha: float

    def __str__(self) -> str:
        lines = ["| step | noise level | correlation | slope | bias |", "|---|---|---|---|---|"]
        lines += [
            f"| {s.step} | {s.time:.3f} | {s.correlation:.3f} | {s.slope:.3f} | {s.bias:+.3g} |" for s in self.steps
        ]
        return "\n".join(lines)

    @property
    def shown(self) -> list[int]:
        """The steps that pictures show: early, midway and the last."""
        last = self.steps[-1].step
        return sorted({max(1, last // 4), max(1, last // 2), last})

    def deciles(self, step: int, count: int = 10) -> tuple[Tensor, Tensor]:
        """Return soft means ``[count]`` of the values and of the rewards of states sorted by value into equal parts."""
        values = self.values[step - 1]
        order = torch.argsort(values, stable=True)
        parts = torch.tensor_split(order, min(count, len(order)))
        means = [[float(soft_mean(row[p][None], self.alpha)) for p in parts] for row in (values, self.rewards)]
        return torch.tensor(means[0]), torch.tensor(means[1])

    def plot(self, path: str | Path) -> Path:
        """Draw correlation by step, and realised against estimated values early, midway and late; return the path."""
        needed("matplotlib", "plot")
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9.6, 4.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.plot([s.step for s in self.steps], [s.correlation for s in self.steps], marker="o", markersize=3)
        left.set_xlabel("step")
        left.set_ylabel("correlation of value and reward")
        left.set_ylim(min(0.0, *left.get_ylim()), 1.02)
        for step in self.shown:
            estimated, realised = self.deciles(step)
            right.plot(estimated, realised, marker="o", markersize=4, label=f"after step {step}")
        ends = right.get_xlim(), right.get_ylim()
        both = (max(ends[0][0], ends[1][0]), min(ends[0][1], ends[1][1]))
        right.plot(both, both, color="0.6", linewidth=1, zorder=0)
        right.set_xlabel("value, tenths of the states")
        right.set_ylabel("what they came to")
        right.legend(frameon=False)
        for axes in (left, right):
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, dpi=150)
        return Path(path)


def calibrate(
    process: Process,
    denoiser: Any,
    reward: Callable[..., Any],
    value: Value | None = None,
    *,
    alpha: float = 1.0,
    particles: int = 1024,
    condition: Any = None,
    x_init: Tensor | None = None,
    frozen: Tensor | None = None,
    bias: Tensor | None = None,
    lengths: Sequence[int] | None = None,
    decode: Any = None,
    seed: int = 0,
    memory: Any = "auto",
) -> Calibration:
    """Draw trajectories of the pretrained model, and compare the values on the way with the rewards at the end.

    A correlation that is near 0 until late says from which step on guidance can see anything: read values from there
    (``SMC(value_steps=…)``). A large bias costs SMC effective samples, and SVDD its target.

    Args:
        process, denoiser, reward, value, x_init, frozen, bias, lengths, decode, seed, memory: as for `fastguide.sample`.
        alpha: temperature of the soft means.
        particles: trajectories n; those that end at a reward of −inf are left out.
        condition: one condition, not a list.
    """
    seen: list[Tensor] = []
    # Weights that are never resampled leave every trajectory to the pretrained model, and read every value.
    run = Run(
        process, denoiser, reward, SMC(alpha=alpha, ess_threshold=0.0), value=value or PosteriorMean(),
        particles=particles, groups=1, condition=None if condition is None else [condition],
        constraints=Constraints(x_init, frozen, bias, lengths), decode=decode, seed=seed, memory=resolve_memory(memory),
        device=torch.device("cpu"), callback=lambda step: seen.append(run.steering.state.values[0]),
    )  # fmt: skip
    with torch.no_grad():
        rewards = run.sample().rewards
    kept = rewards > -torch.inf
    if int(kept.sum()) < 3:
        raise ValueError("reward: fewer than three of the pretrained samples have a finite reward")
    values, rewards = torch.stack(seen[:-1])[:, kept], rewards[kept]
    steps = [_calibrated(k + 1, process.times[k + 1], v, rewards, alpha) for k, v in enumerate(values)]
    return Calibration(tuple(steps), values, rewards, alpha)


def _calibrated(step: int, time: float, values: Tensor, rewards: Tensor, alpha: float) -> Calibrated:
    v, r = values - values.mean(), rewards - rewards.mean()
    spread = float((v * v).sum())
    product = float((v * r).sum())
    both = math.sqrt(spread * float((r * r).sum()))
    bias = float(soft_mean(values[None], alpha) - soft_mean(rewards[None], alpha))
    return Calibrated(
        step, time, product / both if both > 0 else math.nan, product / spread if spread > 0 else math.nan, bias
    )
