"""The guided denoising loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fastguide.ancestry import Ancestry
from fastguide.errors import DegenerateWeights
from fastguide.frontier import Frontier, Predictor
from fastguide.guidance.protocol import Guidance
from fastguide.memory import Memory, default_call_rows, resolve_memory
from fastguide.models.protocol import Denoiser, cat_states
from fastguide.models.protocol import wrap as wrap_denoiser
from fastguide.processes.masked import MaskedProcess
from fastguide.progress import Status, make_progress
from fastguide.reference.exp import MAX_LOG_WEIGHT
from fastguide.result import LogNormalizer, Result
from fastguide.rewards.calls import RewardCalls
from fastguide.rewards.protocol import wrap as wrap_reward
from fastguide.steering import Steering
from fastguide.trace import Trace, TraceStep
from fastguide.values.posterior_mean import PosteriorMean


def sample(
    process: MaskedProcess,
    denoiser: Denoiser | Callable[..., Any],
    reward: Callable[..., Any] | Sequence[Callable[..., Any]],
    guidance: Guidance,
    *,
    value: PosteriorMean | None = None,
    particles: int = 256,
    groups: int = 1,
    condition: Sequence[Any] | None = None,
    lengths: Sequence[int] | None = None,
    x_init: Tensor | None = None,
    bias: Tensor | None = None,
    decode: Callable[[Tensor], Any] | Sequence[Callable[[Tensor], Any]] | None = None,
    seed: int | Sequence[int] | Tensor = 0,
    memory: Memory | int | str = "auto",
    progress: bool | Callable[[Status], object] = True,
    callback: Callable[[TraceStep], object] | None = None,
    device: torch.device | str | None = None,
) -> Result:
    """Draw samples of ``p(x0) · exp(r(x0) / alpha)`` from the pretrained model ``p`` and the reward ``r``.

    Args:
        process: the mathematics of the diffusion, `fastguide.MaskedProcess`.
        denoiser: a `fastguide.models.Denoiser`, or a callable ``(x [n, L] int64, t [n] float32) -> logits [n, L, V]``.
        reward: a `fastguide.rewards.Reward`, or a callable from ``decode(x0)`` to ``[n]`` numbers; a sequence of G gives each
            group its own. −inf forbids a sample.
        guidance: `fastguide.SMC`, `fastguide.SVDD`, `fastguide.BestOfN` or the like.
        value: the look-ahead estimator, `fastguide.PosteriorMean()` when None.
        particles: N per group.
        groups: G independent groups. Without ``condition`` they are replicates: their normalisers give a standard error.
        condition: one prompt, backbone, … a group, handed to ``denoiser.init``.
        lengths: positions of each group (the denoiser's ``length_of`` where it says so); the rest of a row is padding, never
            drawn, scored or compared.
        x_init: int64 ``[L]``, ``[N, L]`` or ``[G·N, L]`` tokens to start from; those that are not the mask stay.
        bias: float32 ``[V]`` or ``[L, V]``, added to the logits of every draw; −inf forbids a token.
        decode: what turns clean rows ``[n, L]`` into what the reward sees; the denoiser's ``decode`` where None.
        seed: an int, expanded into one seed a group, or one int a group, taken as it is.
        memory: bytes to keep predictions in, a text such as ``"2GB"``, or `fastguide.Memory` settings.
        progress: True, False, or a callable that takes a `fastguide.progress.Status`.
        callback: called with the `TraceStep` of each step.
        device: of the states; the CPU when None.

    Returns:
        A `Result`. Its samples are weighted: ``result.draw(k)`` gives equally weighted ones.

    Raises:
        RewardError: the reward raised, or returned NaN, +inf or the wrong shape.
        DegenerateWeights: every sample of a group has weight zero; ``.result`` holds the other groups.
    """
    run = _Run(
        process, denoiser, reward, guidance, value or PosteriorMean(), particles, groups, condition, lengths, x_init, bias,
        decode, seed, resolve_memory(memory), torch.device(device or "cpu"),
    )  # fmt: skip
    with torch.no_grad():
        result = run.run(progress, callback)
    dead = (result.log_weights.view(result.groups, result.particles) < -MAX_LOG_WEIGHT).all(dim=1)
    if bool(dead.any()):
        which = tuple(int(g) for g in dead.nonzero()[:, 0])
        raise DegenerateWeights(
            f"log_weights: every sample of group {', '.join(map(str, which))} has weight zero (reward −inf, or "
            f"reward / alpha below {-MAX_LOG_WEIGHT:.0e}); use more particles, a larger alpha, or put a hard token "
            "constraint into bias, where it masks the draw",
            which,
            result,
        )
    return result


@dataclass
class _Problem:
    """A condition, a reward and a length; groups that share all three share rows of calls."""

    condition: Any
    reward: RewardCalls
    length: int


def _per_group(name: str, value: Any, groups: int) -> list[Any]:
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != groups:
            raise ValueError(f"{name}: expected one for each of the {groups} groups, got {len(value)}")
        return list(value)
    return [value] * groups


class _Run:
    """One call of `sample`: settings checked, then the loop."""

    def __init__(
        self,
        process: MaskedProcess,
        denoiser: Any,
        reward: Any,
        guidance: Guidance,
        value: PosteriorMean,
        particles: int,
        groups: int,
        condition: Sequence[Any] | None,
        lengths: Sequence[int] | None,
        x_init: Tensor | None,
        bias: Tensor | None,
        decode: Any,
        seed: int | Sequence[int] | Tensor,
        memory: Memory,
        device: torch.device,
    ) -> None:
        if not isinstance(process, MaskedProcess):
            raise TypeError(f"process: expected fg.MaskedProcess, got {type(process).__name__}")
        self.steering = Steering(guidance, particles=particles, groups=groups, seed=seed, device=device)
        particles, groups = self.steering.particles, self.steering.groups
        self.process, self.value, self.memory, self.device = process, value, memory, device
        self.denoiser = wrap_denoiser(denoiser)
        if condition is not None and not isinstance(condition, (list, tuple)):
            raise TypeError(f"condition: expected a list with one for each of the {groups} groups")
        conditions = _per_group("condition", condition, groups)
        self.bias = self._check_bias(bias)
        self.lengths = self._check_lengths(lengths, conditions)
        call_rows = memory.call_rows or default_call_rows(
            particles * guidance.branch, 4 * process.length * process.vocab
        )
        self.predictor = Predictor(self.denoiser, process.length, process.vocab, memory, call_rows, device)
        self.counts = (0, 0, 0)
        self.problems, self.problem_of = self._gather(reward, decode, conditions, call_rows)
        self.problem_lengths = torch.tensor([p.length for p in self.problems], device=device)
        self.problem = torch.tensor(self.problem_of, device=device).repeat_interleave(particles)
        self.x = process.prior(groups * particles, self._expand_init(x_init, groups, particles), device)
        self.free, self.frozen = self._find_given(groups)

    def _check_bias(self, bias: Tensor | None) -> Tensor | None:
        if bias is None:
            return None
        shapes = ((self.process.vocab,), (self.process.length, self.process.vocab))
        if not isinstance(bias, Tensor) or bias.shape not in shapes:
            got = list(bias.shape) if isinstance(bias, Tensor) else type(bias).__name__
            raise ValueError(f"bias: expected a tensor of shape {list(shapes[0])} or {list(shapes[1])}, got {got}")
        return bias.to(self.device, torch.float32)

    def _check_lengths(self, lengths: Sequence[int] | None, conditions: list[Any]) -> Tensor | None:
        groups, longest = len(conditions), self.process.length
        if lengths is None:
            known = [self.denoiser.length_of(c) for c in conditions]
            lengths = [longest if length is None else length for length in known]
            if max(lengths) != longest:
                raise ValueError(f"process: length {longest}, but the denoiser has {max(lengths)} positions")
        checked = torch.as_tensor(lengths, device=self.device)
        whole = not (checked.is_floating_point() or checked.is_complex())
        if not whole or checked.shape != (groups,) or int(checked.min()) < 1 or int(checked.max()) > longest:
            raise ValueError(f"lengths: expected {groups} whole numbers in 1..{longest}, got {lengths}")
        checked = checked.to(torch.int64)
        return None if bool((checked == longest).all()) else checked

    def _expand_init(self, x_init: Tensor | None, groups: int, particles: int) -> Tensor | None:
        if isinstance(x_init, Tensor) and x_init.ndim == 2 and len(x_init) == particles and groups > 1:
            return x_init.repeat(groups, 1)
        return x_init

    def _find_given(self, groups: int) -> tuple[Tensor, Tensor | None]:
        """Return the number of masks of each group at the start ``[G]``, and where tokens are given ``[L]``, if any are."""
        mask, rows = self.process.mask, self.x.view(groups, -1, self.process.length)
        used = torch.ones_like(rows, dtype=torch.bool)
        if self.lengths is not None:
            used = (torch.arange(self.process.length, device=self.device) < self.lengths[:, None])[:, None].expand_as(
                rows
            )
        free = ((rows == mask) & used).sum(-1).amax(-1)
        given = (rows != mask) & used
        frozen = given.flatten(0, 1).any(0)
        if self.process.remask > 0 and bool((given != (frozen & used)).any()):
            raise ValueError("x_init: with process.remask every row must give tokens at the same positions")
        return free, frozen if bool(frozen.any()) else None

    def _gather(
        self, reward: Any, decode: Any, conditions: list[Any], call_rows: int
    ) -> tuple[list[_Problem], tuple[int, ...]]:
        groups, memory = len(conditions), self.memory
        rewards, decodes = _per_group("reward", reward, groups), _per_group("decode", decode, groups)
        lengths = [self.process.length] * groups if self.lengths is None else self.lengths.tolist()
        numbers: dict[tuple[int, ...], int] = {}
        problems: list[_Problem] = []
        problem_of = []
        for c, r, d, length in zip(conditions, rewards, decodes, lengths, strict=True):
            key = (id(c), id(r), id(d), length)
            if key not in numbers:
                numbers[key] = len(problems)
                seen = d or partial(self.denoiser.decode, condition=c)
                calls = RewardCalls(wrap_reward(r), seen, call_rows, memory.ragged, memory.merge, memory.remember)
                problems.append(_Problem(c, calls, length))
            problem_of.append(numbers[key])
        return problems, tuple(problem_of)

    def _rewards(self, x0: Tensor, problem: Tensor) -> Tensor:
        if len(self.problems) == 1:
            return self.problems[0].reward(x0[:, : self.problems[0].length])
        out = torch.empty(len(x0), dtype=torch.float64, device=self.device)
        for i, p in enumerate(self.problems):
            members = (problem == i).nonzero()[:, 0]
            if len(members):
                out[members] = p.reward(x0[members, : p.length])
        return out

    def _clean(self, tokens: Tensor, logits: Tensor, problem: Tensor) -> Tensor:
        lengths = None if self.lengths is None else self.problem_lengths[problem]
        return self.value.clean(self.process, tokens, logits, bias=self.bias, lengths=lengths)

    def _draw(self, step: int) -> Callable[..., Tensor]:
        """Return the function that draws the children of particles ``which`` of the step; None means all, in order."""
        s = self.steering

        def draw(tokens: Tensor, logits: Tensor, ancestors: Tensor, which: Tensor | None) -> Tensor:
            # All of them: one seed a group, slots counted by the kernel. Some of them: a seed and a slot for each.
            group = torch.arange(s.groups, device=self.device) if which is None else which // s.particles
            return self.process.propose(
                tokens,
                logits,
                step=step,
                seed=s.seeds[group],
                ancestors=ancestors,
                branch=s.guidance.branch,
                slots=None if which is None else which % s.particles,
                bias=self.bias,
                lengths=None if self.lengths is None else self.lengths[group],
                free=self.free[group],
                frozen=self.frozen,
            )

        return draw

    def _initial_state(self) -> Any:
        n = self.steering.particles
        groups = self.steering.groups
        return cat_states([self.denoiser.init(n, self.problems[self.problem_of[g]].condition) for g in range(groups)])

    def run(
        self, progress: bool | Callable[[Status], object], callback: Callable[[TraceStep], object] | None
    ) -> Result:
        s, process = self.steering, self.process
        guidance, branch, total = s.guidance, s.guidance.branch, process.steps
        trace, ancestry = Trace(), Ancestry(s.groups, s.particles, branch)
        display = make_progress(progress)
        clean = self._clean if guidance.uses_values else None
        began = time.perf_counter()
        timer = _Timer()
        try:
            frontier = self.predictor.distinct(
                self.x, self.problem, 1.0, self._initial_state(), torch.arange(len(self.x), device=self.device)
            )
            particles = frontier.inverse
            s.begin(self._look_ahead(frontier, clean, None, timer))
            for step in range(total):
                with timer("denoiser" if frontier.prediction is None else "sampler"):
                    children, parents, rows = self.predictor.propose(frontier, particles, self._draw(step), branch)
                children = children.view(-1, process.length)
                if step + 1 < total:
                    problem, rows = self.problem.repeat_interleave(branch), rows.repeat_interleave(branch)
                    frontier = self.predictor.distinct(children, problem, process.times[step + 1], parents, rows)
                    s.weigh(self._look_ahead(frontier, clean, s.state.values, timer))
                else:
                    with timer("reward"):
                        s.finish(self._rewards(children, self.problem.repeat_interleave(branch)))
                chosen = s.select()
                flat = (chosen + torch.arange(s.groups, device=self.device)[:, None] * s.particles * branch).view(-1)
                particles = frontier.inverse[flat] if step + 1 < total else flat
                self._record(step, trace, ancestry, chosen, frontier, timer)
                elapsed = time.perf_counter() - began
                left = elapsed / (step + 1) * (total - step - 1)
                known = guidance.uses_values or step + 1 == total
                best = float(trace[-1].values_max.max()) if known else float("-inf")
                display(Status(step + 1, total, float(s.state.ess.mean()), s.particles, best, elapsed, left))
                if callback is not None:
                    callback(trace[-1])
        finally:
            display.close()
        return self._result(children[particles], trace, ancestry, time.perf_counter() - began)

    def _look_ahead(self, frontier: Frontier, clean: Any, previous: Tensor | None, timer: _Timer) -> Tensor | None:
        s = self.steering
        with timer("denoiser"):
            estimates = self.predictor.look_ahead(frontier, clean)
        if estimates is None:
            return None
        with timer("reward"):
            rewards = self._rewards(estimates, frontier.problem)[frontier.inverse].view(s.groups, -1)
        if previous is not None:
            previous = previous.repeat_interleave(s.guidance.branch, dim=1)
        return self.value.combine(rewards, previous)

    def _record(
        self, step: int, trace: Trace, ancestry: Ancestry, chosen: Tensor, frontier: Frontier, timer: _Timer
    ) -> None:
        state = self.steering.state
        parents, ancestors = ancestry.append(chosen)
        finite = state.values > -torch.inf
        mean = torch.where(finite, state.values, 0.0).sum(1) / finite.sum(1)
        counts = (
            self.predictor.computed,
            self.predictor.recomputed,
            sum(p.reward.computed for p in self.problems),
        )
        denoiser_rows, recomputed_rows, reward_rows = (now - was for now, was in zip(counts, self.counts, strict=True))
        self.counts = counts
        seconds = timer.lap()
        trace.append(
            TraceStep(
                step=step,
                time=self.process.times[step + 1],
                alpha=float(self.steering.guidance.alpha),
                ess=state.ess,
                resampled=state.resampled,
                unique_parents=parents,
                unique_ancestors=ancestors,
                values_mean=mean,
                values_max=state.values.amax(1),
                distinct=len(frontier.tokens),
                denoiser_rows=denoiser_rows,
                recomputed_rows=recomputed_rows,
                reward_rows=reward_rows,
                seconds=sum(seconds.values()),
                seconds_denoiser=seconds.get("denoiser", 0.0),
                seconds_reward=seconds.get("reward", 0.0),
            )
        )

    def _result(self, samples: Tensor, trace: Trace, ancestry: Ancestry, seconds: float) -> Result:
        s = self.steering
        reason = None
        if len(self.problems) > 1:
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
            lengths=self.lengths,
            problems=self.problem_of,
            seconds=seconds,
            decode=tuple(self.problems[i].reward.decode for i in self.problem_of),
            _replay=lambda group, particle: self._replay(ancestry, group, particle),
        )

    def _replay(self, ancestry: Ancestry, group: int, particle: int) -> Tensor:
        slots, children = ancestry.lineage(particle, group)
        row = group * self.steering.particles + slots[0]
        one = torch.zeros(1, dtype=torch.int64, device=self.device)
        x, rows, problem = self.x[row : row + 1], one, self.problem[row : row + 1]
        state = self.denoiser.init(1, self.problems[int(problem)].condition)
        trajectory = [x[0]]
        branch = self.steering.guidance.branch
        with torch.no_grad():
            for step, (slot, child) in enumerate(zip(slots, children, strict=False)):
                out = self.predictor.call(x.clone(), self.process.times[step], state, rows)
                which = one + group * self.steering.particles + slot
                x, state = self._draw(step)(x, out.logits, one, which)[:, child % branch], out.state
                trajectory.append(x[0])
        return torch.stack(trajectory)


class _Timer:
    """Wall time by activity since the last lap; what no block claims is the sampler's."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}
        self._start = time.perf_counter()
        self._name, self._entered = "", 0.0

    def __call__(self, name: str) -> _Timer:
        self._name = name
        return self

    def __enter__(self) -> None:
        self._entered = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._spent[self._name] = self._spent.get(self._name, 0.0) + time.perf_counter() - self._entered

    def lap(self) -> dict[str, float]:
        now = time.perf_counter()
        claimed = sum(v for k, v in self._spent.items() if k != "sampler")
        spent = {**self._spent, "sampler": now - self._start - claimed}
        self._spent, self._start = {}, now
        return spent
