"""One run of `fastguide.sample`: settings checked, then the loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from fastguide.ancestry import Ancestry
from fastguide.budget import Budget, Spending
from fastguide.deferred import deferring
from fastguide.frontier import Draw, Frontier, Predictor
from fastguide.graphs import StepGraphs
from fastguide.guidance.protocol import Guidance, guidance_at, proposal_of
from fastguide.memory import Memory, default_call_rows
from fastguide.models.product import Product
from fastguide.models.protocol import cat_states
from fastguide.models.protocol import wrap as wrap_denoiser
from fastguide.problems import Problems, Spans, per_group
from fastguide.processes.corrected import Corrected
from fastguide.processes.protocol import Constraints, Correcting, Process
from fastguide.progress import Status, make_progress
from fastguide.result import LogNormalizer, Result
from fastguide.states import Scene, States, rewards_of
from fastguide.steering import Steering
from fastguide.timer import Timer
from fastguide.trace import Trace, TraceStep
from fastguide.values.protocol import Value, mend_broken

if TYPE_CHECKING:
    from fastguide.guidance.gradients.proposal import GradientProposal


class Proposed(NamedTuple):
    """The children of a step, not yet weighed.

    Attributes:
        children: ``[G·N·M, *shape]``.
        log_ratio: ``[G·N, M]`` float64 ``log p/q``, None where the proposal is the model's own.
        parents: the denoiser state that they continue.
        rows: ``[G·N·M]`` int64, the row of it that each continues.
    """

    children: Tensor
    log_ratio: Tensor | None
    parents: Any
    rows: Tensor


class Measured(NamedTuple):
    """What is recorded of a step: the selected ``children`` ``[G, N]`` int32, and fields of `fastguide.trace.TraceStep`."""

    children: Tensor
    unique_parents: Tensor
    unique_ancestors: Tensor
    ess: Tensor
    resampled: Tensor
    values_mean: Tensor
    values_max: Tensor


class Run:
    """The guided denoising loop. Arguments are those of `fastguide.sample`.

    Attributes:
        scene: process, denoiser and problems.
        steering: weighs and selects.
        x: ``[G·N, *shape]`` states to start from.
        problem: ``[G·N]`` int64, the problem of each particle.
        retained: ``[T + 1, G, *shape]`` the trajectory that slot 0 of each group follows, None where all are drawn.
        first: steps taken already by the states ``x``.
        constraints: what the caller fixed in advance; `again` binds the process under them.
        history: the selected states ``[G·N, *shape]`` before and after each step, where somebody put a list here.
        offspring: all children ``[G·N·M, *shape]`` of each step, likewise.
    """

    first: int = 0
    retained: Tensor | None = None
    history: list[Tensor] | None = None
    offspring: list[Tensor] | None = None

    def __init__(
        self,
        process: Process,
        denoiser: Any,
        reward: Any,
        guidance: Guidance,
        *,
        value: Value,
        particles: int,
        groups: int,
        condition: Sequence[Any] | None,
        constraints: Constraints,
        decode: Any,
        seed: int | Sequence[int] | Tensor,
        memory: Memory,
        device: torch.device,
        budget: Budget | None = None,
        progress: bool | Callable[[Status], object] = False,
        callback: Callable[[TraceStep], object] | None = None,
        cuda_graph: bool = False,
    ) -> None:
        self.steering = Steering(guidance, particles=particles, groups=groups, seed=seed, device=device)
        particles, groups = self.steering.particles, self.steering.groups
        memory = memory.on(device)
        self.value, self.memory, self.device, self.progress, self.callback = value, memory, device, progress, callback
        if condition is not None and not isinstance(condition, (list, tuple)):
            raise TypeError(f"condition: expected a list with one for each of the {groups} groups")
        conditions = per_group("condition", condition, groups)
        denoiser = wrap_denoiser(denoiser)
        if isinstance(denoiser, Product) and denoiser.corrected:
            process = Corrected(process, denoiser)
        if hasattr(process, "wrap"):
            denoiser = process.wrap(denoiser)
        constraints = constraints._replace(known_lengths=[denoiser.length_of(c) for c in conditions])
        self.constraints = constraints
        bound = process.bind(constraints, groups=groups, particles=particles, seeds=self.steering.seeds, device=device)
        call_rows = memory.call_rows or default_call_rows(particles * guidance.branch, bound.output_bytes)
        problems = Problems(denoiser, conditions, reward, decode, bound.lengths, memory, call_rows, device)
        self.scene = Scene(process, bound, denoiser, problems, guidance.alpha)
        self.predictor = Predictor(self.scene, memory, call_rows, device)
        self.x = bound.x
        self.problem = torch.tensor(problems.of_group, device=device).repeat_interleave(particles)
        self._counts = (0, 0, 0)
        self._began = time.perf_counter()
        self.spending = Spending(budget) if budget is not None else None
        if self.spending is not None:
            self.spending.require(*self.rows_unguided)
        self.cuda_graph = cuda_graph

    def again(self, guidance: Guidance, seeds: Tensor) -> Run:
        """Return a run of the same problems by other guidance and seeds; rewards are remembered and rows counted on."""
        run, s = copy(self), self.steering
        run.steering = Steering(guidance, particles=s.particles, groups=s.groups, seed=seeds, device=self.device)
        bound = self.scene.process.bind(
            self.constraints, groups=s.groups, particles=s.particles, seeds=seeds, device=self.device
        )
        run.scene = replace(self.scene, bound=bound, alpha=guidance.alpha)
        used = self.predictor
        run.predictor = Predictor(run.scene, self.memory, used.call_rows, self.device, used.computed, used.recomputed)
        run.x, run.first, run.retained, run.history, run.offspring = bound.x, 0, None, None, None
        return run

    def sample(self) -> Result:
        """Run the loop from ``x`` to data."""
        s, first, total = self.steering, self.first, self.scene.process.steps
        trace, ancestry = Trace(), Ancestry(s.groups, s.particles, self.device)
        graphs = StepGraphs(self, ancestry) if self.cuda_graph else None
        display = make_progress(self.progress)
        began = time.perf_counter()
        timer = Timer()
        try:
            if self.retained is not None:
                self._slot_zero(self.x)[:] = self.retained[0]
            everyone = torch.arange(len(self.x), device=self.device)
            spans = self.scene.problems.spans(len(self.x))
            frontier = self.predictor.distinct(self.x, self.problem, first, self.initial_state(), everyone, spans)
            particles = frontier.inverse
            if self.history is not None:
                self.history.append(self.x)
            s.begin(self._look_ahead(frontier, None, timer), step=first)
            proposed: Proposed | None = None
            for step in range(first, total):
                branch = s.branch
                if proposed is None:
                    proposed = self.proposed(frontier, particles, step, timer)
                taken = None if graphs is None else graphs.take(step, proposed)
                if taken is None:
                    children = proposed.children
                    chosen, found, particles = self.selected(proposed, step, timer)
                    frontier = found or frontier
                    measured, proposed, distinct = self.measured(chosen, branch, ancestry), None, len(frontier.x)
                else:
                    distinct = len(proposed.children)
                    measured, proposed = taken
                self._record(step, branch, trace, ancestry, measured, distinct, timer)
                elapsed = time.perf_counter() - began
                left = elapsed / (step + 1 - first) * (total - step - 1)
                if display.due(step + 1, total):
                    known = s.reads_values(step + 1) or step + 1 == total
                    best = float(trace[-1].values_max.max()) if known else float("-inf")
                    display(Status(step + 1, total, float(s.state.ess.mean()), s.particles, best, elapsed, left))
                if self.callback is not None:
                    self.callback(trace[-1])
        finally:
            display.close()
        return self.result(children[particles], trace, ancestry, time.perf_counter() - began)

    def proposed(self, frontier: Frontier, particles: Tensor, step: int, timer: Timer) -> Proposed:
        """Draw the children of ``particles`` ``[G·N]``, each the index of a state of the frontier, in step ``step``."""
        branch = self.steering.branch
        self._reserve_gradients(frontier)
        with timer("denoiser" if frontier.prediction is None else "sampler"):
            drawn, log_ratio, parents, rows = self.predictor.propose(frontier, particles, self._draw(step), branch)
        children = drawn.flatten(0, 1)
        if self.retained is not None:
            self._slot_zero(children)[:] = self.retained[step + 1]
        if self.offspring is not None:
            self.offspring.append(children)
        return Proposed(children, log_ratio, parents, rows.repeat_interleave(branch))

    def selected(self, proposed: Proposed, step: int, timer: Timer) -> tuple[Tensor, Frontier | None, Tensor]:
        """Weigh the children of step ``step`` and select among them.

        Returns:
            the selected children ``[G, N]``; the children's frontier, None after the last step; and which state of it, or
            after the last step which child, each particle ``[G·N]`` is.
        """
        s, children = self.steering, proposed.children
        branch, frontier = s.branch, None
        problem, spans = self.problem.repeat_interleave(branch), self.scene.problems.spans(len(children))
        if step + 1 < self.scene.process.steps:
            frontier = self.predictor.distinct(children, problem, step + 1, proposed.parents, proposed.rows, spans)
            s.weigh(self._look_ahead(frontier, s.state.values, timer), proposed.log_ratio)
        else:
            with timer("reward"):
                s.finish(self.scene.problems.rewards(children, problem, spans), proposed.log_ratio)
        chosen = s.select()
        flat = (chosen + torch.arange(s.groups, device=self.device)[:, None] * s.particles * branch).view(-1)
        if self.history is not None:
            self.history.append(children[flat])
        return chosen, frontier, flat if frontier is None else frontier.inverse[flat]

    def measured(self, chosen: Tensor, branch: int, ancestry: Ancestry) -> Measured:
        """Return what is recorded of the step that selected ``chosen`` ``[G, N]``; the ancestry's roots follow it."""
        state = self.steering.state
        finite = state.values > -torch.inf
        return Measured(
            chosen.to(torch.int32),
            *ancestry.follow(chosen // branch),
            ess=state.ess,
            resampled=state.resampled,
            values_mean=torch.where(finite, state.values, 0.0).sum(1) / finite.sum(1),
            values_max=state.values.amax(1),
        )

    @property
    def rows_unguided(self) -> tuple[int, int]:
        """Most rows of the denoiser and of the reward that a pass of the loop asks for without any guidance."""
        return len(self.x) * (self.scene.process.steps - self.first), self._last_rows

    def affords_pass(self) -> bool:
        """Whether the budget covers another pass of the loop, some of it guided."""
        if self.spending is None:
            return True
        if self.spending.ended is not None:
            return False
        self._count_spending()
        return self.spending.covers(*self.rows_unguided)

    def affords(self, denoiser_rows: int, reward_rows: int) -> bool:
        """Whether the budget covers so many rows more."""
        if self.spending is None:
            return True
        self._count_spending()
        return self.spending.covers(denoiser_rows, reward_rows)

    def _count_spending(self) -> None:
        spent = self.spending
        assert spent is not None
        spent.seconds = time.perf_counter() - self._began
        spent.denoiser_rows, spent.reward_rows = self.predictor.computed, self.scene.problems.reward_rows

    def _slot_zero(self, rows: Tensor) -> Tensor:
        """Return a view of the first row of each group."""
        return rows.view(self.steering.groups, -1, *rows.shape[1:])[:, 0]

    def _draw(self, step: int) -> Draw:
        """Return the function that draws the children of the particles of a step."""
        s, bound = self.steering, self.scene.bound
        guidance = guidance_at(s.guidance, step)
        ended = None if self.spending is None else self.spending.ended
        proposal = proposal_of(guidance) if ended is None or step < ended else None

        def draw(states: States, ancestors: Tensor, which: Tensor | None) -> tuple[Tensor, Tensor | None]:
            # All of them: one seed a group, slots counted by the kernel. Some of them: a seed and a slot for each.
            group = torch.arange(s.groups, device=self.device) if which is None else which // s.particles
            shift, corrected = None, False
            if proposal is not None:
                spans = self.scene.problems.spans(len(ancestors)) if which is None else states.spans
                states, ancestors = _alive(states, ancestors, spans)
                shift, corrected = proposal.shift(states), proposal.corrected
            assert states.output is not None
            children = bound.propose(
                states.x, states.output, step=step, group=group, seed=s.seeds[group], ancestors=ancestors,
                branch=guidance.branch, slots=None if which is None else which % s.particles, shift=shift,
            )  # fmt: skip
            log_ratio = None
            if shift is not None and corrected:
                log_ratio = bound.log_ratio(
                    children, states.x, states.output, shift, step=step, group=group, ancestors=ancestors
                )
            if isinstance(bound, Correcting):
                change = bound.log_correction(
                    children, states.x, states.output, step=step, group=group, ancestors=ancestors
                )
                log_ratio = change if log_ratio is None else log_ratio + change
            return children, log_ratio

        return draw

    def initial_state(self) -> Any:
        """Return the denoiser state of particles that have seen nothing yet."""
        n, problems = self.steering.particles, self.scene.problems
        return cat_states([self.scene.denoiser.init(n, problems[p].condition) for p in problems.of_group])

    def first_values(self, x: Tensor, drift: GradientProposal | None = None) -> tuple[Tensor, Tensor | None]:
        """Return ``[G, N]`` values of states ``[G·N, *shape]`` at t = 1, read or not, and a drift's gradient of them."""
        everyone = torch.arange(len(x), device=self.device)
        spans = self.scene.problems.spans(len(x))
        frontier = self.predictor.distinct(x, self.problem, 0, self.initial_state(), everyone, spans)
        values = self._values(frontier, self.value, None, Timer())
        assert values is not None
        return values, None if drift is None else drift.gradient_of(self.predictor.states(frontier))

    @property
    def _last_rows(self) -> int:
        """Most samples that the last step may have the reward evaluate."""
        s = self.steering
        return s.groups * s.particles * guidance_at(s.guidance, self.scene.process.steps - 1).branch

    def _affords(self, frontier: Frontier) -> bool:
        """Whether the budget covers a look at these states, and then the rest of the run without any."""
        states, rest = len(frontier.x), self.scene.process.steps - frontier.step - 1
        looks = states * getattr(self.value, "draws", 1)
        rollouts = getattr(self.value, "rollouts", 0) * states * min(rest, getattr(self.value, "depth", None) or rest)
        return self._covers(frontier, states + rollouts, looks)

    def _reserve_gradients(self, frontier: Frontier) -> None:
        """End the guidance unless the budget covers a guided proposal, and then the rest of the run without any."""
        proposal = proposal_of(guidance_at(self.steering.guidance, frontier.step))
        if self.spending is not None and proposal is not None:
            states, (of_denoiser, of_reward) = len(frontier.x), proposal.rows(self.scene)
            predicted = states if frontier.prediction is None else 0
            self._covers(frontier, predicted + of_denoiser * states, of_reward * states)

    def _covers(self, frontier: Frontier, denoiser_rows: int, reward_rows: int) -> bool:
        """Whether the budget covers so many rows for these states, and then the rest of the run without guidance."""
        spent = self.spending
        if spent is None or spent.ended is not None:
            return spent is None
        self._count_spending()
        rest = (self.scene.process.steps - frontier.step - 1) * len(self.x)
        if not spent.covers(denoiser_rows + rest, reward_rows + self._last_rows):
            spent.ended = frontier.step
        return spent.ended is None

    def _look_ahead(self, frontier: Frontier, previous: Tensor | None, timer: Timer) -> Tensor | None:
        s = self.steering
        reads = s.reads_values(frontier.step)
        if previous is not None:
            previous = previous.repeat_interleave(s.branch, dim=1)
        if not reads and self.spending is not None:
            return None
        if not self._affords(frontier):
            return previous
        return self._values(frontier, self.value if reads else None, previous, timer)

    def _values(self, frontier: Frontier, value: Value | None, previous: Tensor | None, timer: Timer) -> Tensor | None:
        problems = self.scene.problems
        with timer("denoiser"):
            looked = self.predictor.look_ahead(frontier, value)
        if value is None or looked is None:
            return None
        dims = self.x.ndim
        with timer("reward"):
            values = value.values(
                looked,
                lambda x0: rewards_of(problems, frontier.problem, x0, dims, frontier.spans),
                self.steering.guidance.alpha,
            )
        return mend_broken(values[frontier.inverse].view(self.steering.groups, -1), previous)

    def _record(
        self, step: int, branch: int, trace: Trace, ancestry: Ancestry, measured: Measured, distinct: int, timer: Timer
    ) -> None:
        found = measured._asdict()
        ancestry.children.append(found.pop("children"))
        ancestry.branches.append(branch)
        counts = (
            self.predictor.computed,
            self.predictor.recomputed,
            self.scene.problems.reward_rows,
        )
        denoiser_rows, recomputed_rows, reward_rows = (now - was for now, was in zip(counts, self._counts, strict=True))
        self._counts = counts
        seconds = timer.lap()
        if self.spending is not None:
            self.spending.seconds_denoiser += seconds.get("denoiser", 0.0)
            self.spending.seconds_reward += seconds.get("reward", 0.0)
        trace.append(
            TraceStep(
                step=step,
                time=self.scene.process.times[step + 1],
                alpha=float(guidance_at(self.steering.guidance, step).alpha),
                **found,
                distinct=distinct,
                denoiser_rows=denoiser_rows,
                recomputed_rows=recomputed_rows,
                reward_rows=reward_rows,
                seconds=sum(seconds.values()),
                seconds_denoiser=seconds.get("denoiser", 0.0),
                seconds_reward=seconds.get("reward", 0.0),
            )
        )

    def result(self, samples: Tensor, trace: Trace, ancestry: Ancestry, seconds: float) -> Result:
        """Return the result of samples ``[G·N, *shape]`` whose weights and rewards are those of ``steering``."""
        s = self.steering
        ancestry.settle()
        reason = None
        if len(self.scene.problems) > 1:
            reason = "the groups have different problems; see .groups"
        if not s.guidance.estimates_normalizer:
            name = type(s.guidance).__name__
            reason = "alpha = 0 leaves no weights" if s.guidance.alpha == 0 else f"{name} gives no estimate"
        return Result(
            samples=samples,
            log_weights=s.log_weights.reshape(-1),
            rewards=s.state.values.reshape(-1),
            log_normalizer=LogNormalizer(s.log_normalizer, reason),
            trace=trace,
            ancestry=ancestry,
            seeds=s.seeds,
            guidance=s.guidance,
            lengths=self.scene.bound.lengths,
            problems=self.scene.problems.of_group,
            seconds=seconds,
            decode=tuple(self.scene.problems[i].reward.decode for i in self.scene.problems.of_group),
            provenance=self._provenance(),
            _replay=lambda group, particle: self._replay(ancestry, group, particle),
        )

    def _provenance(self) -> dict[str, Any]:
        spent = self.spending
        return {} if spent is None or spent.ended is None else {"guidance_ended_at_step": spent.ended}

    def _replay(self, ancestry: Ancestry, group: int, particle: int) -> Tensor:
        slots, children = ancestry.lineage(particle, group)
        row = group * self.steering.particles + slots[0]
        one = torch.zeros(1, dtype=torch.int64, device=self.device)
        x, problem = self.x[row : row + 1], self.problem[row : row + 1]
        state = self.scene.denoiser.init(1, self.scene.problems[int(problem)].condition)
        trajectory = [x[0]]
        times, branches = self.scene.process.times, ancestry.branches
        with torch.no_grad():
            for step, (slot, child) in enumerate(zip(slots, children, strict=False)):
                out = self.predictor.call(x.clone(), step, state, one)
                states = States(
                    x, out.output, step, times[step], problem, state, one, out.state, self.scene, self.predictor
                )
                which = one + group * self.steering.particles + slot
                x, state = self._draw(step)(states, one, which)[0][:, child % branches[step]], out.state
                if self.retained is not None and child == 0:
                    x = self.retained[step + 1, group][None]
                trajectory.append(x[0])
        return torch.stack(trajectory)


def _alive(states: States, ancestors: Tensor, spans: Spans | None) -> tuple[States, Tensor]:
    """Return the states that have children, and the row of each particle's own.

    Where the host reads nothing they are one a particle, whose problems are ``spans``.
    """
    if deferring():
        return states.take(ancestors, spans), torch.arange(len(ancestors), device=ancestors.device)
    alive, ancestors = torch.unique(ancestors, return_inverse=True)
    return states.take(alive), ancestors
