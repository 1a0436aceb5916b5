"""Discrete diffusion without a mask bound to the groups of a run: given tokens, lengths, forbidden tokens.

The law of a step is computed in torch, operation by operation on each position alone or in a fixed order of tokens, and drawn
by `fastguide.ops.masked_step` as if every position were being revealed: exact draws keyed by seed, step, slot and position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fastguide import ops
from fastguide.deferred import deferring, require
from fastguide.ops._masked import check_temperature
from fastguide.processes.protocol import (
    Constraints,
    check_bias,
    check_logits,
    given_tokens,
    initial_tokens,
    of_groups,
    resolve_lengths,
    within,
)
from fastguide.reference import categorical
from fastguide.reference.log import log

if TYPE_CHECKING:
    from fastguide.processes.discrete import Discrete

_PART_BYTES = 2**26
_TEMPORARIES = 10
"""Tensors of float64 that the law of a step takes at the same time."""
_LEAST = 1e-300
"""Smaller probabilities count as zero: they could not be drawn."""


class BoundDiscrete:
    """See `fastguide.processes.protocol.Bound`."""

    def __init__(
        self,
        process: Discrete,
        constraints: Constraints,
        groups: int,
        particles: int,
        seeds: Tensor,
        device: torch.device,
    ) -> None:
        self.process = process
        length, vocab = process.length, process.vocab
        self.bias = check_bias(constraints.bias, length, vocab, device)
        self.lengths = resolve_lengths(constraints, length, groups, device)
        x_init = given_tokens(constraints, groups, particles, length, vocab)
        x = initial_tokens(x_init, groups * particles, length, vocab, device)
        self.given = self._find_given(x, groups)
        self.output_bytes = 4 * length * vocab
        prior = process.log_prior().to(device).expand(1, length, vocab).contiguous()
        # Numbered like a step that never comes: the draws of the noise are those of no other.
        self.x = self._without_padding(
            ops.masked_step(
                x,
                prior.expand(len(x), -1, -1),
                reveal_probability=1.0,
                seed=seeds,
                step=process.steps,
                lengths=self.lengths,
            )[:, 0]
        )

    def _find_given(self, x: Tensor, groups: int) -> Tensor:
        """Return ``[L]`` where tokens are given; raise where rows differ in that, as a state does not tell."""
        given = x != self.process.vocab
        if self.lengths is not None:
            used = within(self.lengths, self.process.length).repeat_interleave(len(x) // groups, dim=0)
            places = (given & used).any(0)
            differ = bool(((given != places) & used).any())
        else:
            places = given.any(0)
            differ = bool((given != places).any())
        if differ:
            raise ValueError("x_init: every row must give tokens at the same positions")
        return places

    def _without_padding(self, x: Tensor) -> Tensor:
        """Return states whose padding, which a step leaves marked as free, holds token 0."""
        return x if self.lengths is None else x.masked_fill_(x == self.process.vocab, 0)

    def _open(self, x: Tensor) -> Tensor:
        """Return states in which every position to draw is marked as free."""
        return torch.where(self.given, x, self.process.vocab)

    def check(self, output: Tensor, n: int) -> None:
        """Raise unless ``output`` are logits or log-scores ``[n, L, V]``."""
        check_logits(output, (n, self.process.length, self.process.vocab))

    def log_law(self, x: Tensor, output: Tensor, step: int, lengths: Tensor | None, *, to_data: bool = False) -> Tensor:
        """Return float32 ``[u, L, V]`` log-probabilities, up to a constant, of the next state, or of x0 if ``to_data``.

        What the network says of given positions and of padding, beyond ``lengths`` ``[u]``, is not read.
        """
        process = self.process
        closed = self.given
        if lengths is not None:
            closed = closed | ~within(lengths, process.length)
        output = torch.where(closed[..., None], 0.0, output.float())
        if process.prediction == "x0":
            p = self._clean_law(output)
            law = p if to_data else process.posterior(x, p, step)
        else:
            own = x[..., None]
            share = torch.softmax(_checked(output.scatter(-1, own, 0.0)).double(), -1)
            total = share.gather(-1, own).reciprocal()
            law = process.reverse(x, share * total, total, step, to_data=to_data)
        shown = torch.where(law > _LEAST, log(law.clamp(min=_LEAST)), -torch.inf).float()
        if process.prediction == "score" and self.bias is not None and (to_data or step + 1 == process.steps):
            shown = shown + self.bias
        return shown

    def _clean_law(self, logits: Tensor) -> Tensor:
        process = self.process
        inverse_temperature = check_temperature(process.temperature)
        y = _checked(categorical.scale_logits(logits, self.bias, inverse_temperature or 1.0))
        rows = y.flatten(0, 1)
        if inverse_temperature == 0:
            best = categorical.largest_tokens(rows)
            return torch.zeros_like(rows, dtype=torch.float64).scatter_(1, best[:, None], 1.0).view_as(y)
        if process.top_k is not None or process.top_p is not None:
            y = torch.where(
                rows >= categorical.threshold(rows, process.top_k, process.top_p), rows, -torch.inf
            ).view_as(y)
        return torch.softmax(y.double(), -1)

    def estimate(self, x: Tensor, output: Tensor, *, step: int, group: Tensor) -> Tensor:
        """Return the most probable clean sample, position by position."""
        lengths = of_groups(self.lengths, group)
        if self.process.prediction == "x0":
            logits, bias = output, self.bias
        else:
            parts = torch.split(torch.arange(len(x), device=x.device), self._part)
            logits = torch.cat([
                self.log_law(x[p], output[p], step, None if lengths is None else lengths[p], to_data=True) for p in parts
            ])  # fmt: skip
            bias = None
        seed = 0 if lengths is None else torch.zeros_like(lengths)
        return self._without_padding(ops.masked_mode(self._open(x), logits, bias=bias, seed=seed, lengths=lengths))

    @property
    def _part(self) -> int:
        """States whose law is computed at a time."""
        return max(1, _PART_BYTES // (8 * _TEMPORARIES * self.process.length * self.process.vocab))

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
        each = len(ancestors) // len(seed)
        if slots is None:
            slots = torch.arange(each, device=x.device).repeat(len(seed))
        lengths = of_groups(self.lengths, group.repeat_interleave(each))
        seed = seed.repeat_interleave(each)
        children = x.new_empty((len(ancestors), branch, self.process.length))
        for part in torch.split(torch.arange(len(ancestors), device=x.device), self._part):
            alive, rows = _alive(ancestors[part])
            own = None if lengths is None else lengths[part]
            children[part] = ops.masked_step(
                self._open(x[alive]),
                self.log_law(x[alive], output[alive], step, _of_states(own, rows, alive)),
                reveal_probability=1.0,
                shift=None if shift is None else shift[alive],
                ancestors=rows,
                branch=branch,
                seed=seed[part],
                step=step,
                slots=slots[part],
                lengths=own,
            )
        return self._without_padding(children)

    def draw_clean(self, x: Tensor, output: Tensor, *, step: int, seeds: Tensor, draws: int, group: Tensor) -> Tensor:
        """Return clean samples ``[U, draws, L]``: every position drawn from ``p(x0 | x_t)``, keyed by seeds ``[U]``."""
        lengths = of_groups(self.lengths, group)
        drawn = x.new_empty((len(x), draws, self.process.length))
        for part in torch.split(torch.arange(len(x), device=x.device), self._part):
            own = None if lengths is None else lengths[part]
            drawn[part] = ops.masked_step(
                self._open(x[part]),
                self.log_law(x[part], output[part], step, own, to_data=True),
                reveal_probability=1.0,
                branch=draws,
                seed=seeds[part],
                slots=torch.zeros_like(part),
                lengths=own,
            )
        return self._without_padding(drawn)

    def log_ratio(
        self, children: Tensor, x: Tensor, output: Tensor, shift: Tensor, *, step: int, group: Tensor, ancestors: Tensor
    ) -> Tensor:
        """Return ``log p/q`` ``[P, M]``, summed over the positions drawn."""
        each = len(ancestors) // len(group)
        lengths = of_groups(self.lengths, group.repeat_interleave(each))
        ratios = []
        for part in torch.split(torch.arange(len(ancestors), device=x.device), self._part):
            alive, rows = _alive(ancestors[part])
            own = None if lengths is None else lengths[part]
            ratios.append(
                ops.masked_log_ratio(
                    self._open(x[alive]),
                    children[part],
                    self.log_law(x[alive], output[alive], step, _of_states(own, rows, alive)),
                    shift[alive],
                    ancestors=rows,
                    lengths=own,
                )
            )
        return torch.cat(ratios)


def _alive(ancestors: Tensor) -> tuple[Tensor, Tensor]:
    """Return the states that have children, and where each particle stands; where the host reads nothing, one each."""
    if deferring():
        return ancestors, torch.arange(len(ancestors), device=ancestors.device)
    return torch.unique(ancestors, return_inverse=True)  # type: ignore[no-any-return]


def _of_states(lengths: Tensor | None, rows: Tensor, alive: Tensor) -> Tensor | None:
    """Return the lengths of the states ``alive`` from those of the particles that stand in them, at ``rows``."""
    return None if lengths is None else torch.zeros_like(alive).scatter_(0, rows, lengths)


def _checked(y: Tensor) -> Tensor:
    """Return ``y`` ``[u, L, V]``; raise where the network (with bias and temperature) gives no law."""
    codes = categorical.row_codes(y)

    def report(first: int, code: float) -> ValueError:
        u, at = divmod(first, codes.shape[1])
        if code == categorical.DEGENERATE:
            return ValueError(f"logits[{u}, {at}] forbid every token (all -inf or below -1e9); allow at least one")
        return ValueError(
            f"logits[{u}, {at}] hold NaN, +inf or a value above 1e9; after bias and temperature a logit must be -inf or a "
            "number up to 1e9"
        )

    require(codes == categorical.OK, codes, report)
    return y
