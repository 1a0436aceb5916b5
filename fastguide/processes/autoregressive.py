"""Autoregressive generation: a state is a prefix, a step adds one token.

The next token is drawn from ``softmax(logits / temperature)`` of the model, cut by ``top_k`` and ``top_p``. The algorithms bear
other names here: SMC is twisted SMC (Zhao et al., 2404.17546), SVDD controlled decoding token by token (Mudgal et al.,
2310.17022), `BestOfN` best-of-N.

The clean sample that the look-ahead ``PosteriorMean`` scores is the prefix as it stands, with ``pad`` for what is not written:
the reward of an unfinished text. It is a poor value where the reward appears at the end only; weights telescope all the same.
A value of one's own (a network, rollouts) replaces it.

A sequence that reaches the end token is finished: the rest is ``pad``, its state does not change any more, its reward is known,
its weight stays, and the denoiser is not asked for it. One that reaches ``length`` first is cut there, which is part of the law
*as run*.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from fastguide import ops
from fastguide.ops._checks import count
from fastguide.ops._masked import check_temperature, check_truncation
from fastguide.processes.protocol import (
    Constraints,
    check_bias,
    check_logits,
    expand_init,
    initial_tokens,
    refuse,
    resolve_lengths,
    within,
)


@dataclass(frozen=True)
class AutoregressiveProcess:
    """Sequences of up to ``length`` tokens out of ``vocab``, written from left to right.

    A state is ``[L]`` tokens: the prefix, then the id ``vocab`` at every position that is not written. The denoiser returns the
    logits of the next token, ``[n, V]``, or ``[n, L, V]`` with those *of* the token at each position (not of the one after it).

    Args:
        length: most positions L of a sequence, the prompt included.
        vocab: tokens V.
        eos: the token that ends a sequence, or several of them; None where all have full length.
        pad: what stands after it, and after a prefix where a look-ahead needs a clean sample; the (first) ``eos`` where None.
        steps: most tokens to write; ``length`` where None. Prompts in ``x_init`` need fewer: their length saves steps.
        temperature: divides the logits (with the bias); 0 takes the most probable token.
        top_k: draw among so many most probable tokens (and the equals of the last one); all where None.
        top_p: draw among the most probable tokens that hold this share, in ``(0, 1]``, of the probability; all where None.
        prompts_end: whether a prompt whose last token is an end token is a finished sequence, or goes on.
    """

    length: int
    vocab: int
    eos: int | Collection[int] | None = None
    pad: int | None = None
    steps: int = None  # type: ignore[assignment]
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    prompts_end: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", self.length if self.steps is None else self.steps)
        for name in ("length", "vocab", "steps"):
            object.__setattr__(self, name, count(name, getattr(self, name)))
        for name, tokens in (("eos", self.ends), ("pad", (self.pad,))):
            for token in tokens:
                if token is not None and not (type(token) is int and 0 <= token < self.vocab):
                    raise ValueError(f"{name}: expected a token in 0..{self.vocab - 1} or None, got {token!r}")
        if self.pad is None and self.ends:
            object.__setattr__(self, "pad", self.ends[0])
        check_temperature(self.temperature)
        check_truncation(self.top_k, self.top_p)

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens that end a sequence."""
        if isinstance(self.eos, Collection):
            return tuple(self.eos)
        return () if self.eos is None else (self.eos,)

    @property
    def mask(self) -> int:
        """The id of a position that is not written."""
        return self.vocab

    @cached_property
    def times(self) -> tuple[float, ...]:
        """The ``steps + 1`` levels that the denoiser is told, from 1 (nothing written) to 0."""
        return (*(1.0 - k / self.steps for k in range(self.steps)), 0.0)

    def bind(
        self, constraints: Constraints, *, groups: int, particles: int, seeds: Tensor, device: torch.device
    ) -> BoundAutoregressive:
        """Return the process with the prompts, lengths and bias of a run."""
        return BoundAutoregressive(self, constraints, groups, particles, device)


class BoundAutoregressive:
    """See `fastguide.processes.protocol.Bound`."""

    def __init__(
        self,
        process: AutoregressiveProcess,
        constraints: Constraints,
        groups: int,
        particles: int,
        device: torch.device,
    ) -> None:
        refuse(process, constraints, "frozen")
        self.process = process
        length, mask = process.length, process.mask
        self.bias = check_bias(constraints.bias, length, process.vocab, device)
        self.lengths = resolve_lengths(constraints, length, groups, device)
        x_init = expand_init(constraints.x_init, groups, particles)
        x = initial_tokens(x_init, groups * particles, length, mask, device)
        free = x == mask
        if self.lengths is not None:
            beyond = ~within(self.lengths, length).repeat_interleave(particles, dim=0)
            free, x = free | beyond, x.masked_fill(beyond, self._fill)
        if bool((free[:, :-1] & ~free[:, 1:]).any()):
            raise ValueError(f"x_init: a prompt stands at the start of its row, with {mask} (not written) after it")
        self.x = self._end(x, (free.int().argmax(1) - 1).clamp(min=0)) if process.prompts_end else x
        most = int((self.x == mask).sum(1).max())
        if most > process.steps:
            raise ValueError(
                f"process: {process.steps} steps write as many tokens, but {most} positions are free; give steps={most}"
            )
        self.output_bytes = 4 * process.vocab

    @property
    def _fill(self) -> int:
        return self.process.pad or 0

    def _end(self, x: Tensor, last: Tensor) -> Tensor:
        """Return rows ``[n, L]`` in which nothing follows an end token at their position ``last`` ``[n]``."""
        process = self.process
        if not process.ends:
            return x
        token = x.gather(1, last[:, None])
        ended = torch.zeros_like(token, dtype=torch.bool)
        for end in process.ends:  # a tensor of them would be copied to a GPU at every step
            ended |= token == end
        return torch.where(ended & (x == process.mask), self._fill, x)

    def finished(self, x: Tensor) -> Tensor:
        """Return bool ``[U]``: which states have no position left to write."""
        return ~(x == self.process.mask).any(1)

    def unread(self, n: int) -> Tensor:
        """Return logits ``[n, V]``."""
        return torch.zeros((n, self.process.vocab), device=self.x.device)

    def check(self, output: Tensor, n: int) -> None:
        """Raise unless ``output`` are logits ``[n, V]`` or ``[n, L, V]``."""
        length, vocab = self.process.length, self.process.vocab
        if output.ndim == 2:
            if output.shape != (n, vocab):
                raise ValueError(
                    f"denoiser: expected logits of the next token, [{n}, {vocab}] ([states, vocab]), or of the token at each "
                    f"position, [{n}, {length}, {vocab}]; got {list(output.shape)}"
                )
            output = output[:, None]
            length = 1
        check_logits(output, (n, length, vocab))
        self.output_bytes = 4 * vocab * length

    def estimate(self, x: Tensor, output: Tensor, *, step: int, group: Tensor) -> Tensor:
        """Return the prefixes as they stand, followed by ``pad``."""
        if self.process.pad is None:
            raise ValueError(
                "process: a look-ahead reads a prefix as a clean sample and needs to know what stands in its rest; give pad= "
                "or eos=, or a value= of your own"
            )
        return torch.where(x == self.process.mask, self.process.pad, x)

    def _next(self, x: Tensor, tensor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return each row's next position ``[u]``, what stands there ``[u, 1]``, and ``tensor`` there ``[u, 1, V]``."""
        free = x == self.process.mask
        # A row that is finished has no next position; what stands at 0 is a token, and keeps the step from drawing there.
        position = free.int().argmax(1)
        if tensor.ndim == 3:
            tensor = tensor[torch.arange(len(x), device=x.device), position]
        return position, x.gather(1, position[:, None]), tensor[:, None]

    def _logits(self, x: Tensor, output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        position, tokens, logits = self._next(x, output)
        if self.bias is not None:
            bias = self.bias if self.bias.ndim == 1 else self.bias[position][:, None]
            logits = logits.float() + bias
        return position, tokens, logits

    def propose(
        self,
        x: Tensor,
        output: Tensor,
        *,
        step: int,
        group: Tensor,
        seed: Tensor,
        ancestors: Tensor,
        branch: int = 1,
        slots: Tensor | None = None,
        shift: Tensor | None = None,
    ) -> Tensor:
        """Draw children ``[P, M, L]``; of a ``shift`` ``[U, L, V]`` what stands at the next positions counts."""
        process = self.process
        position, tokens, logits = self._logits(x, output)
        drawn = ops.masked_step(
            tokens,
            logits,
            reveal_probability=1.0,
            temperature=process.temperature,
            top_k=process.top_k,
            top_p=process.top_p,
            shift=None if shift is None else self._next(x, shift)[2],
            ancestors=ancestors,
            branch=branch,
            seed=seed,
            step=step,
            slots=slots,
        )
        at = position[ancestors][:, None, None].expand(-1, branch, 1)
        children = x[ancestors][:, None].expand(-1, branch, -1).scatter(2, at, drawn)
        return self._end(children.flatten(0, 1), at.flatten(0, 1)[:, 0]).view_as(children)

    def log_ratio(
        self, children: Tensor, x: Tensor, output: Tensor, shift: Tensor, *, step: int, group: Tensor, ancestors: Tensor
    ) -> Tensor:
        """Return ``log p/q`` ``[P, M]`` of the tokens added."""
        process = self.process
        position, tokens, logits = self._logits(x, output)
        added = children.gather(2, position[ancestors][:, None, None].expand(-1, children.shape[1], 1))
        return ops.masked_log_ratio(
            tokens,
            added,
            logits,
            self._next(x, shift)[2],
            temperature=process.temperature,
            top_k=process.top_k,
            top_p=process.top_p,
            ancestors=ancestors,
        )
