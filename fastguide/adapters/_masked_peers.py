"""The loops of AlignInversePro and SVDD as they are, faults included, on `fastguide.ops`: what ``compat=True`` runs.

Networks and rewards are asked once of each distinct row, of all candidates of a step in one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastguide import ops
from fastguide.adapters._masked import Decoded
from fastguide.models.protocol import Denoiser

Score = Callable[[Tensor, Tensor], Tensor]
"""``(clean tokens [n, L], row of the batch [n]) -> [n]``."""


class Seen(NamedTuple):
    """States that a network was asked of.

    Attributes:
        x: ``[n, L]`` int64. logits: ``[n, L, V]``.
        row: ``[n]`` int64, the row of the batch that each belongs to.
        state: of the denoiser. at: ``[n]`` int64, the row of ``state`` of each.
    """

    x: Tensor
    logits: Tensor
    row: Tensor
    state: Any
    at: Tensor

    def take(self, index: Tensor) -> Seen:
        """Return the states of these rows."""
        return Seen(self.x[index], self.logits[index], self.row[index], self.state, self.at[index])


class Loop:
    """Their loop.

    Args:
        denoiser: the network.
        state: its state before anything is revealed, one row each of the batch.
        times: noise level of each step.
        reveal: probability at which each step reveals a masked position.
        temperature: divides the logits of draws.
        length: L. mask: the id of the mask.
        score: the reward.
        seed: of all draws.
        everywhere: whether the network also says what is most probable where a token is revealed already.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        state: Any,
        *,
        times: Sequence[float],
        reveal: Sequence[float],
        temperature: float,
        length: int,
        mask: int,
        score: Score,
        seed: int,
        everywhere: bool = True,
    ) -> None:
        self.denoiser, self.times, self.reveal, self.temperature = denoiser, times, reveal, temperature
        self.mask, self.seed, self._score, self._state, self._length = mask, seed, score, state, length
        self.everywhere = everywhere

    def run(self, batch: int, step: Callable[[Seen, int], Seen]) -> tuple[Decoded, Seen]:
        """Return the trajectory and the states that it ends in."""
        every = torch.arange(batch)
        x = torch.full((batch, self._length), self.mask)
        seen = self.see(x, every, self._state, every, 0)
        kept = Decoded([], [])
        for k in range(len(self.reveal)):
            kept.states.append(seen.x)
            guess = seen.logits.argmax(-1)
            kept.clean.append(guess if self.everywhere else torch.where(seen.x == self.mask, guess, seen.x))
            seen = step(seen, k)
        kept.states.append(seen.x)
        return kept, seen

    def see(self, x: Tensor, row: Tensor, state: Any, at: Tensor, step: int) -> Seen:
        """Ask the network of each distinct one of the states ``x``, which continue rows ``at`` of ``state``."""
        merged = ops.unique(self.denoiser.key(x, state, at))
        first = merged.representatives
        t = torch.full((len(first),), self.times[min(step, len(self.times) - 1)], dtype=torch.float32)
        with torch.no_grad():
            out = self.denoiser(x[first], t, state, at[first])
        return Seen(x, out.output[merged.inverse], row, out.state, merged.inverse)

    def draw(self, seen: Seen, step: int, branch: int = 1, shift: Tensor | None = None) -> Tensor:
        """Return children ``[n·M, L]``; ``shift`` ``[n, L, V]`` tilts tokens against the mask, which is no token of ours."""
        p, logits, x = self.reveal[step], seen.logits.float(), seen.x
        settings: dict[str, Any] = {"branch": branch, "seed": self.seed, "step": step}
        if shift is None:
            drawn = ops.masked_step(x, logits, reveal_probability=p, temperature=self.temperature, **settings)
            return drawn.flatten(0, 1)
        # To stay masked is drawn as one more token, from the law that they draw it from.
        stay = logits.new_tensor([p, 1.0 - p]).log()
        logits = torch.log_softmax(logits / self.temperature, -1) + shift + stay[0]
        logits = torch.cat([logits, stay[1].expand(*x.shape, 1)], -1)
        wide = logits.shape[-1]
        drawn = ops.masked_step(x.masked_fill(x == self.mask, wide), logits, reveal_probability=1.0, **settings)
        return drawn.flatten(0, 1).masked_fill(drawn.flatten(0, 1) == wide - 1, self.mask)

    def children(self, seen: Seen, step: int, branch: int = 1, shift: Tensor | None = None) -> Seen:
        """Draw children and ask the network of them."""
        x = self.draw(seen, step, branch, shift)
        return self.see(x, seen.row.repeat_interleave(branch), seen.state, seen.at.repeat_interleave(branch), step + 1)

    def score(self, x0: Tensor, row: Tensor) -> Tensor:
        """Return the rewards of clean samples, each distinct one asked once."""
        merged = ops.unique(torch.cat([x0, row[:, None]], 1))
        first = merged.representatives
        with torch.no_grad():
            return self._score(x0[first], row[first])[merged.inverse]

    def complete(self, x: Tensor, logits: Tensor, masks: Tensor) -> Tensor:
        """Return ``x`` with the network's most probable token wherever ``masks`` holds the mask."""
        return torch.where(masks == self.mask, logits.argmax(-1), x)

    def best_child(self, branch: int) -> Callable[[Seen, int], Seen]:
        """SVDD: keep the best child of each row."""
        return lambda seen, step: self._best(self.children(seen, step, branch), branch)[0]

    def nested(self, branch: int) -> Callable[[Seen, int], Seen]:
        """Their nested importance sampling: the best child of each row, then rows drawn ∝ exp(score / largest |score|)."""

        def step(seen: Seen, k: int) -> Seen:
            kept, values = self._best(self.children(seen, k, branch), branch)
            return self._draw_rows(kept, values / values.abs().max(), k)

        return step

    def smc(self, alpha: float) -> Callable[[Seen, int], Seen]:
        """Their SMC: the child completed by its parent's mask, resampled at every step, weights dropped."""

        def step(seen: Seen, k: int) -> Seen:
            after = self.children(seen, k)
            gain = self.score(self.complete(after.x, after.logits, seen.x), seen.row)
            gain = gain - self.score(self.complete(seen.x, seen.logits, seen.x), seen.row)
            return self._draw_rows(after, gain / alpha, k)

        return step

    def _best(self, seen: Seen, branch: int) -> tuple[Seen, Tensor]:
        values = self.score(self.complete(seen.x, seen.logits, seen.x), seen.row).view(-1, branch)
        best = values.argmax(1)
        return seen.take(best + branch * torch.arange(len(best))), values.amax(1)

    def _draw_rows(self, seen: Seen, log_weights: Tensor, step: int) -> Seen:
        drawn = ops.select(log_weights.double(), rule="multinomial", seed=self.seed, step=step).ancestors
        return seen.take(drawn.to(torch.int64))
