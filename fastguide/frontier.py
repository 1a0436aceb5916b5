"""The distinct states of one step, and what the denoiser says of them.

Each distinct state is evaluated once; its prediction gives the value of this step and the proposals of the next. Predictions
are kept while they fit in the memory limit. Beyond it only tokens are kept, and the survivors are predicted again, a
micro-batch at a time, when they propose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fastguide import ops
from fastguide.memory import Memory, fixed_batches
from fastguide.models.protocol import Denoiser, Prediction, State, cat_states, state_bytes


@dataclass
class Frontier:
    """The distinct states of a step.

    Attributes:
        tokens: ``[U, L]`` distinct states.
        inverse: ``[R]`` the distinct state of each child.
        problem: ``[U]`` int64, which condition, reward and length each belongs to.
        time: noise level.
        parents: the denoiser state that ``rows`` ``[U]`` continues.
        prediction: logits and state of all U, or None where they did not fit.
        predicted: whether they were computed at all.
    """

    tokens: Tensor
    inverse: Tensor
    problem: Tensor
    time: float
    parents: State
    rows: Tensor
    prediction: Prediction | None = None
    predicted: bool = False


@dataclass
class Predictor:
    """Calls the denoiser: distinct states, fixed shapes, micro-batches.

    Attributes:
        computed: rows asked of the denoiser so far, padding not counted.
        recomputed: how many of them were predicted a second time for want of memory.
    """

    denoiser: Denoiser
    length: int
    vocab: int
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
        return self.denoiser.batch_invariant or self.memory.ragged

    @property
    def _row_bytes(self) -> int:
        return self.length * self.vocab * 4 + self._state_bytes

    def distinct(self, children: Tensor, problem: Tensor, time: float, parents: State, rows: Tensor) -> Frontier:
        """Merge equal children ``[R, L]``, each continuing row ``rows[r]`` of ``parents``, into a `Frontier`."""
        if not self.memory.merge:
            each = torch.arange(len(children), device=children.device)
            return Frontier(children, each, problem, time, parents, rows)
        key = self.denoiser.key(children, parents, rows)
        if key.ndim != 2 or len(key) != len(children):
            raise ValueError(
                f"denoiser: expected key(x, state, rows) of shape [{len(children)}, K], one row a state, got "
                f"{list(key.shape)}"
            )
        if bool((problem != problem[0]).any()):
            key = torch.cat([key, problem[:, None]], dim=1)
        merged = ops.unique(key)
        first = merged.representatives
        return Frontier(children[first], merged.inverse, problem[first], time, parents, rows[first])

    def call(self, tokens: Tensor, time: float, state: State, rows: Tensor) -> Prediction:
        """Predict ``[b, L]`` states; a network that is not batch invariant sees ``call_rows`` rows at a time, always."""
        self.computed += len(tokens)
        if self._any_rows or len(tokens) == self.call_rows:
            return self._checked(self.denoiser(tokens, self._times(len(tokens), time), state, rows), len(tokens))
        parts = _Parts(len(tokens))
        for index, real in fixed_batches(len(tokens), self.call_rows, tokens.device):
            n = len(index)
            out = self._checked(self.denoiser(tokens[index], self._times(n, time), state, rows[index]), n)
            kept = self.denoiser.move(out.state, torch.arange(real, device=tokens.device)) if real < n else out.state
            parts.add(Prediction(out.logits[:real], kept))
        return parts.joined()

    def _times(self, n: int, time: float) -> Tensor:
        return torch.full((n,), time, dtype=torch.float32, device=self.device)

    def _checked(self, prediction: Prediction, n: int) -> Prediction:
        shape = (n, self.length, self.vocab)
        if prediction.logits.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            raise TypeError(
                f"denoiser: expected logits of dtype float32, float16 or bfloat16, got {prediction.logits.dtype}; return "
                "logits.float()"
            )
        if prediction.logits.shape != shape:
            raise ValueError(
                f"denoiser: expected logits of shape {list(shape)} ([states, length, vocab]), got "
                f"{list(prediction.logits.shape)}; the mask has no logit column"
            )
        return prediction

    def batches(self, frontier: Frontier, index: Tensor) -> Iterator[tuple[Tensor, Prediction]]:
        """Yield ``(part of index, prediction of those distinct states)``, a micro-batch at a time."""
        for part in torch.split(index, self.micro_batch):
            yield part, self.call(frontier.tokens[part], frontier.time, frontier.parents, frontier.rows[part])

    def look_ahead(self, frontier: Frontier, clean: Callable[[Tensor, Tensor, Tensor], Tensor] | None) -> Tensor | None:
        """Predict every distinct state; return the estimates ``clean(tokens, logits, problem)`` ``[U, L]``, if asked.

        Predictions are kept in ``frontier.prediction`` where all fit, in the memory of those of the step before. Where nothing
        is asked and they do not fit, nothing is computed before the states propose.
        """
        count = len(frontier.tokens)
        estimates: list[Tensor] = []
        most = min(len(frontier.inverse), self._limit // self._row_bytes)
        parts: _Parts | None = _Parts(count, most, self._kept)
        fits = count * self._row_bytes <= self._limit
        if clean is None and not fits:
            return None
        for part, out in self.batches(frontier, torch.arange(count, device=frontier.tokens.device)):
            if not self._state_bytes and out.state is not None:
                self._state_bytes = state_bytes(out.state) // len(part)
                fits = count * self._row_bytes <= self._limit
            if clean is not None:
                estimates.append(clean(frontier.tokens[part], out.logits, frontier.problem[part]))
            if not fits:
                parts = None
            if parts is not None:
                parts.add(out)
        frontier.predicted = True
        if parts is not None:
            frontier.prediction = parts.joined()
            self._kept = parts.buffer
        return torch.cat(estimates) if clean is not None else None

    def propose(
        self, frontier: Frontier, particles: Tensor, draw: Callable[..., Tensor], branch: int
    ) -> tuple[Tensor, State, Tensor]:
        """Draw the children of ``particles`` ``[P]``, each the index of a distinct state.

        Args:
            frontier: the states.
            particles: ``[P]`` the distinct state of each particle.
            draw: ``draw(tokens, logits, ancestors, which)`` → children ``[p, M, L]`` of the particles ``which``, whose tokens
                and logits stand in rows ``ancestors``; None means all, in order.
            branch: children M.

        Returns:
            children ``[P, M, L]``, the denoiser state of the parents, and the row ``[P]`` of it that each particle continues.
        """
        device = particles.device
        if frontier.prediction is not None:
            children = draw(frontier.tokens, frontier.prediction.logits, particles, None)
            return children, frontier.prediction.state, particles
        survivors, row = torch.unique(particles, return_inverse=True)
        order = torch.argsort(row, stable=True)
        starts = torch.searchsorted(row[order], torch.arange(len(survivors) + 1, device=device))
        children = frontier.tokens.new_empty((len(particles), branch, self.length))
        states, done = [], 0
        before = self.computed
        for part, out in self.batches(frontier, survivors):
            which = order[int(starts[done]) : int(starts[done + len(part)])]
            children[which] = draw(frontier.tokens[part], out.logits, row[which] - done, which)
            states.append(out.state)
            done += len(part)
        if frontier.predicted:
            self.recomputed += self.computed - before
        return children, cat_states(states), row


class _Parts:
    """Predictions of parts of ``count`` states, joined as they come: a list of them would hold all logits twice.

    ``most`` is how many states a later step may have: new memory is taken for as many at once.

    Attributes:
        buffer: the memory that the logits are written to, at first that of an earlier step or None. Fresh memory would cost
            more in page faults than the copy itself.
    """

    def __init__(self, count: int, most: int = 0, buffer: Tensor | None = None) -> None:
        self.buffer = buffer
        self._count = count
        self._most = max(count, most)
        self._done = 0
        self._logits: Tensor | None = None
        self._states: list[State] = []

    def add(self, part: Prediction) -> None:
        rows = len(part.logits)
        if rows == self._count:
            self._logits = part.logits
        else:
            if self._logits is None:
                self._logits = self._room(part.logits)
            self._logits[self._done : self._done + rows] = part.logits
        self._states.append(part.state)
        self._done += rows

    def joined(self) -> Prediction:
        assert self._logits is not None
        return Prediction(self._logits, cat_states(self._states))

    def _room(self, like: Tensor) -> Tensor:
        buffer = self.buffer
        if buffer is None or len(buffer) < self._count or buffer.dtype != like.dtype or buffer.device != like.device:
            self.buffer = buffer = like.new_empty((self._most, *like.shape[1:]))
        return buffer[: self._count]
