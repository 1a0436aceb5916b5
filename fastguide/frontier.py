"""The distinct states of one step, and what the denoiser says of them.

Each distinct state is evaluated once; its prediction gives the value of this step and the proposals of the next. Predictions
are kept while they fit in the memory limit. Beyond it only states are kept, and the survivors are predicted again, a
micro-batch at a time, when they propose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from fastguide import ops
from fastguide.deferred import deferring
from fastguide.memory import Memory, fixed_batches
from fastguide.models.protocol import Denoiser, Prediction, State, cat_states, state_bytes
from fastguide.problems import Spans, part_of
from fastguide.processes.protocol import Finishing
from fastguide.states import Scene, States
from fastguide.values.protocol import Value

Draw = Callable[[States, Tensor, Tensor | None], tuple[Tensor, Tensor | None]]
"""``draw(states, ancestors, which)`` → children ``[p, M, *shape]`` of the particles ``which`` (None: all, in order), which
stand in rows ``ancestors`` of the states, and their ``log p/q`` ``[p, M]`` where a guided proposal is corrected, else None."""


@dataclass
class Frontier:
    """The distinct states of a step.

    Attributes:
        x: ``[U, *shape]`` distinct states, those that are finished (if the process has such) last.
        inverse: ``[R]`` the distinct state of each child.
        problem: ``[U]`` int64, which condition, reward and length each belongs to.
        step: steps taken.
        parents: the denoiser state that ``rows`` ``[U]`` continues.
        prediction: output and state of all U, or None where they did not fit.
        predicted: whether they were computed at all.
        spans: what the host knows of ``problem``; None where states were merged or put in another order.
    """

    x: Tensor
    inverse: Tensor
    problem: Tensor
    step: int
    parents: State
    rows: Tensor
    prediction: Prediction | None = None
    predicted: bool = False
    spans: Spans | None = None


@dataclass
class Predictor:
    """Calls the denoiser: distinct states, fixed shapes, micro-batches.

    Attributes:
        computed: rows asked of the denoiser so far, padding not counted.
        recomputed: how many of them were predicted a second time for want of memory.
    """

    scene: Scene
    memory: Memory
    call_rows: int
    device: torch.device
    computed: int = 0
    recomputed: int = 0
    _limit: int = field(init=False)
    _state_bytes: int = field(default=0, init=False)
    _kept: Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._limit = self.memory.bytes

    @property
    def micro_batch(self) -> int:
        """States that are predicted at a time, before anything is made of them."""
        if self.memory.micro_batch is not None:
            return self.memory.micro_batch
        if self._any_rows:
            return max(1, min(4096, self._limit // (4 * self._row_bytes)))
        return self.call_rows

    @property
    def _any_rows(self) -> bool:
        """Whether a call may have any number of rows."""
        return self.scene.denoiser.batch_invariant or self.memory.ragged

    @property
    def _row_bytes(self) -> int:
        return self.scene.bound.output_bytes + self._state_bytes

    def distinct(
        self,
        children: Tensor,
        problem: Tensor,
        step: int,
        parents: State,
        rows: Tensor,
        spans: Spans | None = None,
    ) -> Frontier:
        """Merge equal children ``[R, *shape]``, each continuing row ``rows[r]`` of ``parents``, into a `Frontier`.

        Real-valued states are left as they are: no two of them are equal. So are all where the host reads nothing
        (`fastguide.deferred`): how many are distinct it would have to be told. ``spans`` is what it knows of ``problem``.
        """
        if not self.memory.merge or children.is_floating_point() or deferring():
            each = torch.arange(len(children), device=children.device)
            frontier = Frontier(children, each, problem, step, parents, rows, spans=spans)
        else:
            first, inverse = self._merge(children, problem, parents, rows)
            frontier = Frontier(children[first], inverse, problem[first], step, parents, rows[first])
        finished = self._finished(frontier.x)
        if finished is None:
            return frontier
        # What there is to predict comes first, and fills as few calls as it can.
        order = torch.argsort(finished.int(), stable=True)
        inverse = torch.argsort(order)[frontier.inverse]
        return Frontier(frontier.x[order], inverse, frontier.problem[order], step, parents, frontier.rows[order])

    def _merge(self, children: Tensor, problem: Tensor, parents: State, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return a representative ``[U]`` of each distinct child, and which of them each child ``[R]`` equals."""
        key = self.scene.denoiser.key(children, parents, rows)
        if key.ndim != 2 or len(key) != len(children):
            raise ValueError(
                f"denoiser: expected key(x, state, rows) of shape [{len(children)}, K], one row a state, got "
                f"{list(key.shape)}"
            )
        if bool((problem != problem[0]).any()):
            key = torch.cat([key, problem[:, None]], dim=1)
        merged = ops.unique(key)
        return merged.representatives, merged.inverse

    def _finished(self, x: Tensor) -> Tensor | None:
        """Return which states are finished, ``[U]`` bool; None where none is, or the host reads nothing."""
        bound = self.scene.bound
        if deferring() or not isinstance(bound, Finishing):
            return None
        finished = bound.finished(x)
        return finished if bool(finished.any()) else None

    def call(
        self,
        x: Tensor,
        step: int,
        state: State,
        rows: Tensor,
        before: Prediction | None = None,
        spans: Spans | None = None,
    ) -> Prediction:
        """Predict ``[b, *shape]`` states; a network that is not batch invariant sees ``call_rows`` rows at a time, always.

        Of finished states nothing is computed: the rows that stand for them are those of others, and nobody reads them.
        ``before`` is an earlier call of the same step, whose shapes a batch without any other takes; ``spans`` is what the host
        knows of the problems of ``x``.
        """
        finished, denoiser = self._finished(x), self.scene.denoiser
        if deferring() and spans is not None:
            return self._call_each(x, step, state, rows, spans)
        if finished is None:
            return self._call(denoiser, x, step, state, rows)
        others = (~finished).nonzero()[:, 0]
        if len(others):
            before = self._call(denoiser, x[others], step, state, rows[others])
        elif before is None:
            assert isinstance(self.scene.bound, Finishing)
            return Prediction(self.scene.bound.unread(len(x)), denoiser.move(state, rows))
        row = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        row[others] = torch.arange(len(others), device=x.device)
        return Prediction(before.output[row], denoiser.move(before.state, row))

    def _call_each(self, x: Tensor, step: int, state: State, rows: Tensor, spans: Spans) -> Prediction:
        """Predict the states of one problem after another, where the denoiser makes something of that."""
        denoiser, problems, parts, start = self.scene.denoiser, self.scene.problems, _Parts(len(x)), 0
        for problem, count in spans:
            own = denoiser.of(problems[problem].condition)
            if own is denoiser:
                return self._call(denoiser, x, step, state, rows)
            end = start + count
            parts.add(self._call(own, x[start:end], step, state, rows[start:end]))
            start = end
        return parts.joined()

    def _call(self, denoiser: Denoiser, x: Tensor, step: int, state: State, rows: Tensor) -> Prediction:
        times = partial(self.scene.times, step=step, device=self.device)
        self.computed += len(x)
        if self._any_rows or len(x) == self.call_rows:
            return self._checked(denoiser(x, times(len(x)), state, rows), len(x))
        parts = _Parts(len(x))
        for index, real in fixed_batches(len(x), self.call_rows, x.device):
            n = len(index)
            out = self._checked(denoiser(x[index], times(n), state, rows[index]), n)
            kept = denoiser.move(out.state, torch.arange(real, device=x.device)) if real < n else out.state
            parts.add(Prediction(out.output[:real], kept))
        return parts.joined()

    def _checked(self, prediction: Prediction, n: int) -> Prediction:
        self.scene.bound.check(prediction.output, n)
        return prediction

    def _batches(self, frontier: Frontier, index: Tensor, spans: Spans | None) -> Iterator[tuple[States, State]]:
        """Yield the distinct states ``index``, predicted, and their denoiser state, a micro-batch at a time.

        ``spans`` is what the host knows of the problems of ``index``.
        """
        out = None
        for part, own in self._split(index, spans):
            out = self.call(frontier.x[part], frontier.step, frontier.parents, frontier.rows[part], out, own)
            yield self.states(frontier, part, out.output, out.state, own), out.state

    def _split(self, index: Tensor, spans: Spans | None) -> Iterator[tuple[Tensor, Spans | None]]:
        """Yield ``index`` in micro-batches, each with its own part of ``spans``."""
        start = 0
        for part in torch.split(index, self.micro_batch):
            yield part, part_of(spans, start, len(part))
            start += len(part)

    def states(
        self,
        frontier: Frontier,
        part: Tensor | None = None,
        output: Tensor | None = None,
        state: State = None,
        spans: Spans | None = None,
    ) -> States:
        """Return the distinct states ``part``, of problems ``spans``, with what the denoiser said of them if that is at hand.

        Without ``part`` they are all.
        """
        x, problem, rows = frontier.x, frontier.problem, frontier.rows
        if part is None:
            spans = frontier.spans
        else:
            x, problem, rows = x[part], problem[part], rows[part]
        time = self.scene.process.times[frontier.step]
        return States(
            x, output, frontier.step, time, problem, frontier.parents, rows, state, self.scene, self, spans=spans
        )

    def look_ahead(self, frontier: Frontier, value: Value | None) -> Tensor | None:
        """Predict every distinct state; return what ``value`` reads off them ``[U, …]``, if one is given.

        Predictions are kept in ``frontier.prediction`` where all fit, in the memory of those of the step before. Where none is
        read and they do not fit, none is computed before the states propose.
        """
        count = len(frontier.x)
        everyone = torch.arange(count, device=frontier.x.device)
        looked: list[Tensor] = []
        most = min(len(frontier.inverse), self._limit // self._row_bytes)
        parts: _Parts | None = _Parts(count, most, self._kept)
        fits = count * self._row_bytes <= self._limit
        if not fits and not (value and value.reads_output):
            if value is None:
                return None
            split = self._split(everyone, frontier.spans)
            return torch.cat([value.look(self.states(frontier, part, spans=own)) for part, own in split])
        for states, state in self._batches(frontier, everyone, frontier.spans):
            assert states.output is not None
            if not self._state_bytes and state is not None:
                self._state_bytes = state_bytes(state) // len(states.x)
                fits = count * self._row_bytes <= self._limit
            if value is not None:
                looked.append(value.look(states))
            if not fits:
                parts = None
            if parts is not None:
                parts.add(Prediction(states.output, state))
        frontier.predicted = True
        if parts is not None:
            frontier.prediction = parts.joined()
            self._kept = parts.buffer
        return torch.cat(looked) if value is not None else None

    def propose(
        self, frontier: Frontier, particles: Tensor, draw: Draw, branch: int
    ) -> tuple[Tensor, Tensor | None, State, Tensor]:
        """Draw the children of ``particles`` ``[P]``, each the index of a distinct state.

        Args:
            frontier: the states.
            particles: ``[P]`` the distinct state of each particle.
            draw: what draws.
            branch: children M.

        Returns:
            children ``[P, M, *shape]``, their ``log p/q`` or None, the denoiser state of the parents, and the row ``[P]`` of
            it that each particle continues.
        """
        device = particles.device
        if frontier.prediction is not None:
            states = self.states(frontier, None, *frontier.prediction)
            return *draw(states, particles, None), frontier.prediction.state, particles
        spans: Spans | None = None
        starts: Sequence[int] = range(len(particles) + 1)
        if deferring() and frontier.spans is not None:
            # Which of them are twins the host would have to be told: each is predicted.
            spans = self.scene.problems.spans(len(particles))
            survivors, row = particles, torch.arange(len(particles), device=device)
            order = row
        else:
            survivors, row = torch.unique(particles, return_inverse=True)
            order = torch.argsort(row, stable=True)
            starts = torch.searchsorted(row[order], torch.arange(len(survivors) + 1, device=device)).tolist()
        children = frontier.x.new_empty((len(particles), branch, *frontier.x.shape[1:]))
        log_ratio = torch.empty((len(particles), branch), dtype=torch.float64, device=device)
        guided = False
        states_after, done = [], 0
        for states, state in self._batches(frontier, survivors, spans):
            which = order[starts[done] : starts[done + len(states.x)]]
            children[which], ratio = draw(states, row[which] - done, which)
            if ratio is not None:
                guided, log_ratio[which] = True, ratio
            states_after.append(state)
            done += len(states.x)
        if frontier.predicted:
            self.recomputed += done
        return children, log_ratio if guided else None, cat_states(states_after), row


class _Parts:
    """Predictions of parts of ``count`` states, joined as they come: a list of them would hold all outputs twice.

    ``most`` is how many states a later step may have: new memory is taken for as many at once.

    Attributes:
        buffer: the memory that outputs are written to, at first that of an earlier step or None. Fresh memory would cost
            more in page faults than the copy itself.
    """

    def __init__(self, count: int, most: int = 0, buffer: Tensor | None = None) -> None:
        self.buffer = buffer
        self._count = count
        self._most = max(count, most)
        self._done = 0
        self._output: Tensor | None = None
        self._states: list[State] = []

    def add(self, part: Prediction) -> None:
        rows = len(part.output)
        if rows == self._count:
            self._output = part.output
        else:
            if self._output is None:
                self._output = self._room(part.output)
            self._output[self._done : self._done + rows] = part.output
        self._states.append(part.state)
        self._done += rows

    def joined(self) -> Prediction:
        assert self._output is not None
        return Prediction(self._output, cat_states(self._states))

    def _room(self, like: Tensor) -> Tensor:
        buffer, kind = self.buffer, (like.shape[1:], like.dtype, like.device)
        if buffer is None or len(buffer) < self._count or (buffer.shape[1:], buffer.dtype, buffer.device) != kind:
            self.buffer = buffer = like.new_empty((self._most, *like.shape[1:]))
        return buffer[: self._count]
