"""Steps of a run recorded as CUDA graphs.

A step of a small network is dozens of launches, which take the host longer than the device. Recorded once, it is one launch. A
recording begins with the children of a step and ends with those of the next (weigh, select, propose), so that no prediction has
to be copied: what goes from step to step are the children, the rows they continue, and what `Steering` knows.

Steps are of one kind, and share a recording, where the same guidance takes them, and the next, and values are read after both
or after neither. The first step of a kind runs as always and makes whatever is made once; the second is recorded and, like the
others, replayed. The last two steps of a run are never recorded: the last children are drawn and weighed in ways of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fastguide import clock
from fastguide.clock import Clock
from fastguide.deferred import Sticky, pending
from fastguide.guidance.protocol import guidance_at, phase_at, proposal_of, reads_values
from fastguide.timer import Timer

if TYPE_CHECKING:
    from fastguide.ancestry import Ancestry
    from fastguide.run import Measured, Proposed, Run

FEWEST = 4
"""Steps of one kind that are worth a recording."""

Kind = tuple[int, ...]


class CudaGraph:
    """A body recorded on a GPU."""

    def __init__(self, body: Callable[[], None], device: torch.device) -> None:
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device), torch.cuda.graph(self._graph):
            body()

    @staticmethod
    def check(device: torch.device) -> None:
        """Raise unless ``device`` is a GPU."""
        if device.type != "cuda":
            raise ValueError(f'cuda_graph: the states are on {device}; give device="cuda", or leave cuda_graph out')

    def replay(self) -> None:
        """Launch what was recorded."""
        self._graph.replay()


class StepGraphs:
    """Takes the steps of a run by recordings where it can.

    Args:
        run: whose checks are deferred.
        ancestry: that of the run; its roots follow recorded steps too.

    Raises:
        ValueError: something of the run reads on the host what a step is.
    """

    def __init__(self, run: Run, ancestry: Ancestry) -> None:
        checks = pending()
        assert checks is not None
        _require_followers(run)
        self.run, self.ancestry, self.checks = run, ancestry, checks
        self.clock = Clock(run.device)
        problems = run.scene.problems
        self._calls: list[Any] = [run.predictor, *(problems[i].reward for i in range(len(problems)))]
        self._practised: dict[Kind, _Practised] = {}
        self._recordings: dict[Kind, _Recording] = {}
        self._latest: _Recording | None = None
        self._halfway = self._counts
        self._owed = [0] * len(self._calls)
        kinds = {step: self._kind(step) for step in range(run.first, run.scene.process.steps)}
        counts = Counter(kinds.values())
        self._kinds = {step: kind for step, kind in kinds.items() if kind is not None and counts[kind] >= FEWEST}

    def take(self, step: int, proposed: Proposed) -> tuple[Measured, Proposed] | None:
        """Weigh and select the children of a step and propose the next ones; None where the run should do so itself."""
        # Rows that guided proposals of this step cost were asked for with the step before, and belong here.
        self._add(self._owed)
        self._owed = [0] * len(self._calls)
        kind, latest = self._kinds.get(step), self._latest
        self._latest = None
        if kind is None:
            return None
        if kind not in self._practised:
            return self._practise(step, proposed, kind)
        if kind not in self._recordings:
            self._recordings[kind] = _Recording(self, step, proposed, self._practised[kind])
        recording = self._recordings[kind]
        if recording is not latest:
            recording.enter(step, proposed)
        self._latest = recording
        with self.uncounted():
            taken = recording.replay(step)
        self._add(self._practised[kind].rows)
        self._owed = self._practised[kind].rows_ahead
        return taken

    def _practise(self, step: int, proposed: Proposed, kind: Kind) -> tuple[Measured, Proposed]:
        """Take the first step of a kind as always, but for its numbers, and learn what a recording needs to know."""
        known, before = len(self.checks), self._counts
        with clock.running(self.clock):
            self.clock.offset.zero_()
            measured, following = self.body(step, proposed)
        after = self._counts
        self._counts = self._halfway
        rows, self._owed = _difference(self._halfway, before), _difference(after, self._halfway)
        self._practised[kind] = _Practised(measured, self.checks.sticky(known), rows, self._owed)
        return measured, following

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """Count no rows of the block, in which the body runs as often as the kind of recording has it."""
        before = self._counts
        yield
        self._counts = before

    def body(self, step: int, proposed: Proposed) -> tuple[Measured, Proposed]:
        """Do what is recorded."""
        run, branch, timer = self.run, self.run.steering.branch, Timer()
        chosen, frontier, particles = run.selected(proposed, step, timer)
        assert frontier is not None
        if frontier.prediction is None:
            raise ValueError(
                "cuda_graph: the predictions of a step do not fit in memory; raise the limit, or use fewer particles"
            )
        measured = run.measured(chosen, branch, self.ancestry)
        self._halfway = self._counts
        return measured, run.proposed(frontier, particles, step + 1, timer)

    @property
    def _counts(self) -> list[int]:
        """How many rows were asked of the denoiser and of the rewards so far."""
        return [call.computed for call in self._calls]

    @_counts.setter
    def _counts(self, counts: list[int]) -> None:
        for call, count in zip(self._calls, counts, strict=True):
            call.computed = count

    def _add(self, rows: list[int]) -> None:
        for call, count in zip(self._calls, rows, strict=True):
            call.computed += count

    def _kind(self, step: int) -> Kind | None:
        """Return what a step has in common with those that may share its recording; None where it cannot be recorded."""
        run = self.run
        watched = run.retained is not None or run.history is not None or run.offspring is not None
        if watched or step + 2 >= run.scene.process.steps:
            return None
        guidance = run.steering.guidance
        of_steps = ((id(guidance_at(guidance, k)), phase_at(guidance, k)) for k in (step, step + 1))
        kind_of = getattr(run.scene.bound, "kind", None)
        ways = () if kind_of is None else (kind_of(step), kind_of(step + 1))
        return (*sum(of_steps, ()), int(reads_values(guidance, step + 1)), *ways)


class _Practised(NamedTuple):
    """What is known of a kind of step once it was taken.

    Attributes:
        measured: what that step was found to be.
        sticky: remembers what its checks find in any replay.
        rows: that it asked of the denoiser and of the rewards.
        rows_ahead: that the proposals of the next step did.
    """

    measured: Measured
    sticky: Sticky
    rows: list[int]
    rows_ahead: list[int]


class _Recording:
    """A recording of a step, and the memory it works on.

    Args:
        of: the owner.
        step: the step to record, and ``proposed`` its children.
        known: of its kind.
    """

    def __init__(self, of: StepGraphs, step: int, proposed: Proposed, known: _Practised) -> None:
        self._of, self._step, self._known = of, step, known
        steps = of.run.scene.process.steps
        self._log = [leaf.new_empty((steps, *leaf.shape)) for leaf in known.measured]
        leaves, self._spec = self._flat(proposed)
        self._held = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        with of.uncounted():
            self._graph = CudaGraph(self._body, of.run.device)

    def enter(self, step: int, proposed: Proposed) -> None:
        """Take up the run at ``step``, whose children are ``proposed``."""
        leaves, spec = self._flat(proposed)
        assert spec == self._spec
        self._copy(leaves)
        self._of.clock.offset.fill_(step - self._step)

    def replay(self, step: int) -> tuple[Measured, Proposed]:
        """Take step ``step``."""
        self._graph.replay()
        return type(self._known.measured)(*(log[step] for log in self._log)), self._load(step + 1)

    def _body(self) -> None:
        of = self._of
        with clock.running(of.clock):
            proposed = self._load(self._step)
            known = len(of.checks)
            measured, following = of.body(self._step, proposed)
            self._known.sticky.fold(of.checks.take(known))
            for log, leaf in zip(self._log, measured, strict=True):
                log.index_copy_(0, of.clock.offset + self._step, leaf[None])
        leaves, _ = self._flat(following)
        self._copy(leaves)
        of.clock.offset += 1

    def _flat(self, proposed: Proposed) -> tuple[list[Any], pytree.TreeSpec]:
        """Return all that goes from step to step."""
        of = self._of
        return pytree.tree_flatten((proposed, of.run.steering.state._replace(step=0), of.ancestry.roots))

    def _load(self, step: int) -> Proposed:
        """Make what is held that of the run, and return the children of step ``step``."""
        of = self._of
        proposed, state, of.ancestry.roots = pytree.tree_unflatten(self._held, self._spec)
        of.run.steering.state = state._replace(step=step)
        return proposed  # type: ignore[no-any-return]

    def _copy(self, leaves: list[Any]) -> None:
        """Hold ``leaves``, which may be held already, in other places."""
        held = [leaf for leaf in self._held if isinstance(leaf, Tensor)]
        new = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        own = {leaf.untyped_storage().data_ptr() for leaf in held}
        pairs = [(to, leaf) for to, leaf in zip(held, new, strict=True) if leaf is not to]
        pairs = [(to, leaf.clone() if leaf.untyped_storage().data_ptr() in own else leaf) for to, leaf in pairs]
        for to, leaf in pairs:
            to.copy_(leaf)


def _difference(now: list[int], before: list[int]) -> list[int]:
    return [a - b for a, b in zip(now, before, strict=True)]


def _require_followers(run: Run) -> None:
    """Raise unless all that takes part in a step of ``run`` reads the number of the step from the device."""
    CudaGraph.check(run.device)
    if run.spending is not None:
        raise ValueError("cuda_graph: a budget is weighed on the host at every step; leave out one of the two")
    guidance, process = run.steering.guidance, run.scene.process
    parts: list[tuple[str, Any, Any]] = [("process", process, run.scene.bound), ("value", run.value, run.value)]
    parts += [("guidance", g, g) for g in (guidance_at(guidance, step) for step in range(process.steps))]
    parts += [("guidance", g, proposal_of(g) or g) for _, g, _ in parts[2:]]
    for name, part, follower in parts:
        if not getattr(follower, "follows_clock", False):
            raise ValueError(
                f"cuda_graph: {name} {type(part).__name__} reads on the host which step it is; leave cuda_graph out"
            )
    for i in range(len(run.scene.problems)):
        reward = run.scene.problems[i].reward.reward
        if reward.device is not None and reward.device.type == "cpu" and run.device.type == "cuda":
            raise ValueError(f"cuda_graph: reward '{reward.name}' is computed on the CPU; leave cuda_graph out")
