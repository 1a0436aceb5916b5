"""The states of one step as look-ahead values and guided proposals see them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastguide import clock
from fastguide.memory import fixed_batches
from fastguide.models.protocol import Prediction, State
from fastguide.processes.protocol import Bound, Process

if TYPE_CHECKING:
    from fastguide.frontier import Predictor
    from fastguide.models.protocol import Denoiser
    from fastguide.problems import Problems, Spans


@dataclass(frozen=True)
class Scene:
    """What stays the same during a run.

    Attributes:
        process: as the caller gave it. bound: the same under the constraints of the run.
        denoiser: the network. Its rows are not counted when it is called from here; `States.predict` counts them.
        problems: conditions and rewards.
        alpha: temperature of the target.
    """

    process: Process
    bound: Bound
    denoiser: Denoiser
    problems: Problems
    alpha: float

    def times(self, n: int, step: int, device: torch.device) -> Tensor:
        """Return ``[n]`` float32, the noise level after ``step`` steps."""
        time = clock.entry(self.process.times, step)
        if isinstance(time, Tensor):
            return time.float().repeat(n)
        return torch.full((n,), time, dtype=torch.float32, device=device)


@dataclass(frozen=True)
class States:
    """States after ``step`` steps, and what the denoiser says of them.

    Attributes:
        x: ``[U, *shape]``.
        output: ``[U, …]`` the denoiser's output; None where a value does not read it and it was not computed.
        step: steps taken so far, 0 is the noise.
        time: noise level.
        problem: ``[U]`` int64, which problem each belongs to.
        parents: the denoiser state that the call which gave ``output`` continued, row ``rows[u]`` of it for each.
        rows: ``[U]`` int64.
        state: the denoiser state that the call returned, row u of it for state u; None without output.
        scene: the run.
        predictor: calls the denoiser in micro-batches of fixed shape, and counts the rows.
        real: how many of the rows are no padding; None: all.
        spans: what the host knows of ``problem``; None: nothing.
    """

    x: Tensor
    output: Tensor | None
    step: int
    time: float
    problem: Tensor
    parents: State
    rows: Tensor
    state: State
    scene: Scene
    predictor: Predictor
    real: int | None = None
    spans: Spans | None = None

    @property
    def group(self) -> Tensor:
        """``[U]`` int64: one group that each state's problem belongs to."""
        return self.scene.problems.first_group[self.problem]

    def estimate(self) -> Tensor:
        """Return the clean sample ``[U, *shape]`` that the denoiser predicts."""
        assert self.output is not None
        return self.scene.bound.estimate(self.x, self.output, step=self.step, group=self.group)

    def opened(self) -> Tensor:
        """Return bool ``[U, L, 1]``, the positions of masked states that are still to be revealed."""
        bound: Any = self.scene.bound
        opened: Tensor = bound.opened(self.x, group=self.group)
        return opened[..., None]

    def one_hot(self) -> Tensor:
        """Return float32 ``[U, L, V + 1]`` of tokens, the mask last."""
        assert self.output is not None
        vocab = self.output.shape[-1]
        # By comparison: torch's one_hot reads how large the largest token is.
        tokens = torch.arange(vocab + 1, device=self.x.device)
        return (self.x.clamp(0, vocab)[..., None] == tokens).float()

    def estimate_soft(self, x: Tensor | None = None, output: Tensor | None = None) -> Tensor:
        """Return the expected one-hot ``[U, L, V]`` of the clean sample: probabilities where open, one-hot where not.

        ``x`` ``[U, L, V + 1]`` and ``output`` stand for the one-hot and the denoiser's output, where these carry gradients.
        """
        x = self.one_hot() if x is None else x
        output = self.output if output is None else output
        bound: Any = self.scene.bound
        log_p = bound.log_probs(self.x, output, group=self.group)
        return torch.where(self.opened(), log_p.exp(), x[..., :-1])

    def draw_clean(self, seeds: Tensor, draws: int) -> Tensor:
        """Return ``[U, draws, *shape]`` clean samples drawn from the prediction, keyed by seeds ``[U]``."""
        assert self.output is not None
        draw = getattr(self.scene.bound, "draw_clean", None)
        if draw is None:
            raise ValueError(
                f"decode: the prediction of {type(self.scene.process).__name__} is no law of clean samples to draw from; "
                'use "argmax", or MonteCarlo'
            )
        return draw(  # type: ignore[no-any-return]
            self.x, self.output, step=self.step, seeds=seeds, draws=draws, group=self.group
        )

    def rewards(self, x0: Tensor) -> Tensor:
        """Return float64 rewards ``[U]`` or ``[U, m]`` of clean samples ``[U, *shape]`` or ``[U, m, *shape]``."""
        return rewards_of(self.scene.problems, self.problem, x0, self.x.ndim, self.spans)

    def soft_rewards(self, x0: Tensor) -> Tensor:
        """Return float64 rewards ``[U]`` of soft clean samples ``[U, L, V]``, in the fixed calls of other networks."""
        found = torch.empty(len(x0), dtype=torch.float64, device=x0.device)
        for number, members in enumerate(self.scene.problems.members(self.problem, self.spans)):
            problem = self.scene.problems[number]
            free = problem.reward.reward.batch_invariant or self.predictor.memory.ragged
            rows = max(1, len(members)) if free else self.predictor.call_rows
            for index, real in fixed_batches(len(members), rows, x0.device):
                problem.reward.computed += real
                with torch.no_grad():
                    values = problem.soft(x0[members[index]], tokens=True)
                found[members[index[:real]]] = values[:real].to(found)
        return found

    def gradient(self, x0: Tensor, of: Tensor) -> Tensor:
        """Return the gradient in ``of`` of the rewards of clean samples ``x0`` that depend on it.

        ``x0`` is ``[U, *shape]``, of tokens the soft ``[U, L, V]``. All states have to be of one problem.
        """
        problems = self.scene.problems
        number = 0 if len(problems) == 1 else self.spans[0][0] if self.spans else int(self.problem[0])
        problem = problems[number]
        problem.reward.computed += len(self.x) if self.real is None else self.real
        with torch.enable_grad():
            total = problem.soft(x0, tokens=not self.x.is_floating_point()).sum()
        (found,) = torch.autograd.grad(total, of)
        return found

    def take(self, index: Tensor, spans: Spans | None = None) -> States:
        """Return the states of these rows, without the denoiser state, which is the larger part of them.

        ``spans`` is what the host knows of their problems, where these states are not all of one.
        """
        output = None if self.output is None else self.output[index]
        if spans is None and self.spans is not None and len(self.spans) == 1:
            spans = ((self.spans[0][0], len(index)),)
        return replace(
            self, x=self.x[index], output=output, problem=self.problem[index], rows=self.rows[index], state=None,
            spans=spans,
        )  # fmt: skip

    def predict(self, x: Tensor) -> Prediction:
        """Call the denoiser on other states ``[U, *shape]`` (soft one-hot rows, states that require gradients)."""
        self.predictor.computed += len(x) if self.real is None else self.real
        return self.scene.denoiser(x, self.scene.times(len(x), self.step, x.device), self.parents, self.rows)


def rewards_of(problems: Problems, problem: Tensor, x0: Tensor, dims: int, spans: Spans | None = None) -> Tensor:
    """Return rewards of ``[U, *shape]`` or ``[U, m, *shape]``, where ``[U, *shape]`` has ``dims`` dimensions."""
    if x0.ndim == dims:
        return problems.rewards(x0, problem, spans)
    m = x0.shape[1]
    of_all = None if spans is None else tuple((p, m * rows) for p, rows in spans)
    return problems.rewards(x0.flatten(0, 1), problem.repeat_interleave(m), of_all).view(-1, m)
