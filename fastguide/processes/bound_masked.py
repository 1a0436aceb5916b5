"""Masked diffusion bound to the groups of a run: given tokens, lengths, forbidden tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastguide import ops
from fastguide.deferred import deferring
from fastguide.processes.protocol import (
    Constraints,
    check_bias,
    check_logits,
    given_tokens,
    of_groups,
    resolve_lengths,
    within,
)
from fastguide.reference.categorical import scale_logits, threshold

if TYPE_CHECKING:
    from fastguide.processes.masked import MaskedProcess


class BoundMasked:
    """See `fastguide.processes.protocol.Bound`."""

    follows_clock = True

    def __init__(
        self, process: MaskedProcess, constraints: Constraints, groups: int, particles: int, device: torch.device
    ) -> None:
        self.process = process
        self.bias = check_bias(constraints.bias, process.length, process.vocab, device)
        self.lengths = resolve_lengths(constraints, process.length, groups, device)
        x_init = given_tokens(constraints, groups, particles, process.length, process.mask)
        self.x = process.prior(groups * particles, x_init, device)
        self.output_bytes = 4 * process.length * process.vocab
        self.free, self.given = self._find_given(groups)

    def _find_given(self, groups: int) -> tuple[Tensor | None, Tensor | None]:
        """Return how many masks each group has at the start ``[G]``, and where tokens are given ``[L]``, if any are.

        Only what the process asks for: counts where it reveals by count, places where it takes tokens back.
        """
        process = self.process
        if process.reveal != "count" and process.remask == 0:
            return None, None
        rows = self.x.view(groups, -1, process.length)
        used = torch.ones_like(rows, dtype=torch.bool)
        if self.lengths is not None:
            used = within(self.lengths, process.length)[:, None].expand_as(rows)
        free = ((rows == process.mask) & used).sum(-1).amax(-1)
        given = (rows != process.mask) & used
        places = given.flatten(0, 1).any(0)
        if process.remask > 0 and bool((given != (places & used)).any()):
            raise ValueError("x_init: with process.remask every row must give tokens at the same positions")
        return free, places if bool(places.any()) else None

    def check(self, output: Tensor, n: int) -> None:
        """Raise unless ``output`` are logits ``[n, L, V]``."""
        check_logits(output, (n, self.process.length, self.process.vocab))

    def estimate(self, x: Tensor, output: Tensor, *, step: int, group: Tensor) -> Tensor:
        """Return the most probable clean sample, position by position."""
        return self.process.mode(x, output, bias=self.bias, lengths=of_groups(self.lengths, group))

    def opened(self, x: Tensor, *, group: Tensor) -> Tensor:
        """Return bool ``[U, L]``: the positions of states that hold the mask and are no padding."""
        masked = x == self.process.mask
        if self.lengths is None:
            return masked
        return masked & within(self.lengths[group], self.process.length)

    def log_probs(self, x: Tensor, output: Tensor, *, group: Tensor) -> Tensor:
        """Return float32 ``[U, L, V]`` log-probabilities of draws, after bias, temperature and truncation, with gradients.

        They are meant where a position is open; what stands elsewhere comes of logits that nobody promised.
        """
        process = self.process
        if process.temperature == 0:
            raise ValueError(
                "process: at temperature 0 a draw is certain and cannot be guided; give a positive temperature"
            )
        y = scale_logits(output, self.bias, 1.0 / process.temperature)
        if process.top_k is not None or process.top_p is not None:
            opened = self.opened(x, group=group)
            if deferring():  # the host cannot be told how many are open
                every = threshold(y.detach().flatten(0, 1), process.top_k, process.top_p).view_as(y[..., :1])
                least = torch.where(opened[..., None], every, -torch.inf)
            else:
                least = torch.full_like(y[..., :1], -torch.inf)
                least[opened] = threshold(y.detach()[opened], process.top_k, process.top_p)
            y = torch.where(y >= least, y, -torch.inf)
        return torch.log_softmax(y, dim=-1)

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
        """Draw children ``[P, M, L]``."""
        return self.process.propose(
            x, output, step=step, seed=seed, ancestors=ancestors, branch=branch, slots=slots, bias=self.bias, shift=shift,
            lengths=of_groups(self.lengths, group),
            free=of_groups(self.free, group), frozen=self.given,
        )  # fmt: skip

    def is_whole(self, x: Tensor, *, group: Tensor) -> bool:
        """Whether no position of states holds the mask."""
        return not bool(self.opened(x, group=group).any())

    def renoise(self, x0: Tensor, *, step: int, seeds: Tensor) -> Tensor:
        """Return clean samples ``[G·N, L]`` as they stand after ``step`` steps: masked, but for a share of the free positions.

        Each is kept with the probability ``a(t)``; with ``reveal="count"`` a random subset of as many as the steps reveal.
        """
        process = self.process
        opened = self.x == process.mask
        share, counts = process.share_kept(step), None
        if process.reveal == "count":
            assert self.free is not None
            counts = (self.free.double() * share).round().to(torch.int64)
        # Numbered like a step that never comes, of a vocabulary of one token: 0 is kept, 1 the mask.
        kept = ops.masked_step(
            opened.to(torch.int64), torch.zeros((*x0.shape, 1), device=x0.device), seed=seeds, step=process.steps,
            reveal_probability=share if counts is None else None, reveal_count=counts, lengths=self.lengths,
        )[:, 0]  # fmt: skip
        return torch.where(opened & (kept == 0), x0, self.x)

    def draw_clean(self, x: Tensor, output: Tensor, *, step: int, seeds: Tensor, draws: int, group: Tensor) -> Tensor:
        """Return clean samples ``[U, draws, L]``: every masked position drawn from the prediction, keyed by seeds ``[U]``."""
        process = self.process
        return ops.masked_step(
            x, output, reveal_probability=1.0, temperature=process.temperature, top_k=process.top_k, top_p=process.top_p,
            bias=self.bias, branch=draws, seed=seeds, slots=torch.zeros_like(seeds),
            lengths=of_groups(self.lengths, group),
        )  # fmt: skip

    def log_ratio(
        self, children: Tensor, x: Tensor, output: Tensor, shift: Tensor, *, step: int, group: Tensor, ancestors: Tensor
    ) -> Tensor:
        """Return ``log p/q`` ``[P, M]``, summed over the positions revealed in the step."""
        return self.process.log_ratio(
            children, x, output, shift, ancestors=ancestors, bias=self.bias,
            lengths=of_groups(self.lengths, group),
        )  # fmt: skip
