"""ProteinMPNN as a denoiser of masked states."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fastguide.deferred import deferring, require
from fastguide.memory import total_bytes
from fastguide.models.protein_mpnn.condition import Cached, Condition, Layout
from fastguide.models.protein_mpnn.decoder import MASK, MASKED
from fastguide.models.protein_mpnn.layers import inference
from fastguide.models.protein_mpnn.weights import find_weights, load_weights
from fastguide.models.protocol import Denoiser, Prediction

if TYPE_CHECKING:
    from fastguide.protein import Design

State = dict[str, Tensor]

_ROWS = 16384
"""Rows of the decoder that are worked on at once; their indices take 20 MB."""

_GPU_ROWS = 2**17
"""The same on a GPU."""


class ProteinMPNN(Denoiser):
    """Inverse folding: p(amino acid | backbone, the residues revealed so far).

    ProteinMPNN (Dauparas et al., Science 2022) reads residues in any order, so it is an absorbing-state denoiser: a
    residue sees the token of a neighbour if and only if that was revealed before it. What one call reveals is revealed
    at once: those residues do not see each other. The state says what was revealed when.

    The state is a dict: ``condition`` ``[n]`` int64, the design of each particle; ``ranks`` ``[n, L]`` int16, when each
    variable was revealed, counted without gaps, 32767 where it was not; and, if rows are cached, ``keys``
    ``[n, 2, F, 128]`` float32, what each free residue tells those that see it, and ``logits`` ``[n, F, 20]`` float32 of
    the masked ones. A child computes the residues that see something new, and those only once among the children of a
    parent that see the same. Results have the same bits with the cache and without, in any batch, and for any number of
    threads.

    On a GPU a run tells the host nothing on the way, and so not which residues are worth computing: all are, and no rows are
    cached unless ``cache=True`` says so. Constants are computed on the CPU and copied.

    Args:
        design: what to design where ``condition`` names nothing else; or several designs that are to share batches, the
            first of which is the default.
        weights: the name of a network in the proteinmpnn package, or a path to a weight file in its format.
        soluble: take the networks trained on soluble proteins.
        cache: keep ``keys`` and ``logits`` in the state, 1.1 KB a free residue and particle; "auto" keeps them if those
            of the ``n`` particles of `init` take less than a quarter of the device's memory. Without them every call
            computes all rows again.
        device: where it computes, and where states are.

    Attributes:
        vocab: 20. The network's column for X is dropped.
        weights_hash: sha256 of the weight file, hexadecimal.
        memory: bytes that the constants of designs may take (0.6 MB a designed residue, most of it the tabulated first
            layer), at first a quarter of the device's. The design used longest ago is dropped first, and made again
            when it is needed.

    Raises:
        BackendUnavailable: the weights are not installed.
        ValueError: there are no such weights, or the design is not one.
    """

    vocab = MASK
    batch_invariant = True
    differentiable = False

    def __init__(
        self,
        design: Design | Sequence[Design] | None = None,
        *,
        weights: str | os.PathLike[str] = "v_48_020",
        soluble: bool = False,
        cache: bool | Literal["auto"] = "auto",
        device: torch.device | str = "cpu",
    ) -> None:
        if cache not in (True, False, "auto"):
            raise ValueError(f"cache: expected True, False or 'auto', got {cache!r}")
        self.cache = cache
        self.device = _numbered(device)
        self.memory = total_bytes(self.device) // 4
        self._only: int | None = None
        self._weights = load_weights(find_weights(weights, soluble))
        self._layouts: list[Layout] = []
        self._lengths = torch.empty(0, dtype=torch.int64, device=self.device)
        self._conditions: OrderedDict[int, Condition] = OrderedDict()
        for known in design if isinstance(design, Sequence) else () if design is None else (design,):
            self.register(known)

    def to(self, device: torch.device | str) -> ProteinMPNN:
        """Return the model on ``device``, with the designs that it knows; states stay where they are."""
        moved = copy(self)
        moved.device = _numbered(device)
        moved.memory = total_bytes(moved.device) // 4
        moved._layouts, moved._lengths = list(self._layouts), self._lengths.to(moved.device)
        for layout in moved._layouts:
            layout.on(moved.device)
        moved._conditions = OrderedDict((i, known.to(moved.device)) for i, known in self._conditions.items())
        return moved

    def of(self, condition: Design | None) -> ProteinMPNN:
        """Return the model for calls whose rows are all of one design: the host need not be told which."""
        if len(self._layouts) == 1:
            return self
        bound = copy(self)  # the designs made ready are shared
        bound._only = self._index(condition)
        return bound

    @property
    def weights_hash(self) -> str:
        """The sha256 of the weight file, hexadecimal."""
        return self._weights.sha256

    @property
    def length(self) -> int:
        """L: the number of variables of the longest design registered."""
        return max((layout.length for layout in self._layouts), default=0)

    def register(self, design: Design) -> int:
        """Make ``design`` known and return its index. A design already known keeps its index.

        States are as wide as the longest design known when they are made, so where designs of several lengths are to
        run in one batch, register all of them before the first `init`.
        """
        for index, layout in enumerate(self._layouts):
            if layout.design is design:
                return index
        self._layouts.append(Layout(design))
        self._layouts[-1].on(self.device)
        self._lengths = torch.tensor([layout.length for layout in self._layouts], device=self.device)
        return len(self._layouts) - 1

    def init(self, n: int, condition: Design | None = None) -> State:
        """Return the state of ``n`` particles that have revealed nothing.

        Args:
            n: the number of particles.
            condition: what to design; None takes the design that the model was made with.
        """
        index = self._index(condition)
        state = {
            "condition": torch.full((n,), index, device=self.device),
            "ranks": torch.full((n, self.length), MASKED, dtype=torch.int16, device=self.device),
        }
        width = max(len(layout.columns) for layout in self._layouts)
        keys, logits = (F.pad(known, (0, 0, 0, width - known.shape[-2])) for known in self._condition(index).blank)
        # Of the memory in all, not of what is free now: groups of one run have to come to the same decision.
        fits = 4 * n * (keys.nbytes + logits.nbytes) < total_bytes(self.device)
        if self.cache is True or (self.cache == "auto" and fits and not deferring()):
            state |= {"keys": keys.repeat(n, 1, 1, 1), "logits": logits.repeat(n, 1, 1)}
        return state

    def __call__(
        self, x: Tensor, t: Tensor | None = None, state: State | None = None, rows: Tensor | None = None
    ) -> Prediction:
        """Predict the clean tokens.

        Args:
            x: ``[n, L]`` int64, 0..19 in the order ACDEFGHIKLMNPQRSTVWY, 20 = masked.
            t: not read; the network learns how much is masked from ``x``.
            state: as `init` or an earlier call returned it; None means `init` of as many.
            rows: ``[n]`` int64, the row of ``state`` that each row of ``x`` continues; None means row by row.

        Returns:
            logits ``[n, L, 20]`` float32 with the design's bias added, zero where ``x`` is revealed, averaged over tied
            residues; and the state of these rows.
        """
        return self.predict(x, self.init(len(x)) if state is None else state, rows)

    def predict(self, x: Tensor, state: State, rows: Tensor | None = None, wanted: Tensor | None = None) -> Prediction:
        """Predict the clean tokens, at some positions only.

        Args:
            x: as in `__call__`.
            state: as in `__call__`.
            rows: as in `__call__`.
            wanted: ``[n, L]`` bool. Logits elsewhere are zero. A position that is not wanted may not be revealed by the
                next call: a run without guidance, which knows what it will reveal next, pays for nothing else.
        """
        with inference(self.device):
            ranks = self._advance(x, state, rows)
            if deferring():
                # A token that the check above refuses would be read out of bounds before the error is raised.
                x = x.clamp(0, MASK)
            parents = torch.arange(len(x), device=self.device) if rows is None else rows
            known = state["condition"][parents]
            fresh = ranks != state["ranks"][parents]
            masked = x == MASK
            wanted = masked if wanted is None else masked & wanted
            logits = torch.zeros(*x.shape, self.vocab, dtype=torch.float32, device=self.device)
            after = {"condition": known, "ranks": ranks}
            cached = "keys" in state
            if cached:
                after |= {name: state[name].new_zeros(len(x), *state[name].shape[1:]) for name in ("keys", "logits")}
            for index, own in self._shares(known):
                condition = self._condition(index)
                length, size = condition.layout.length, condition.decoder.size
                for block in torch.split(own, max(1, self._rows // size)):
                    now: Cached | None
                    if deferring():
                        # Rows of other designs are computed too; what was found for theirs stays.
                        mine = (known[block] == index)[:, None]
                        found, new = condition.predict_all(x[block], ranks[block], wanted[block] & mine)
                        found += logits[block, :length]
                        now = self._merged(new, mine, after, block) if cached else None
                    else:
                        of = parents[block]
                        before = Cached(state["keys"][of, :, :size], state["logits"][of, :size]) if cached else None
                        found, now = condition.predict(x[block], ranks[block], wanted[block], fresh[block], of, before)
                    logits[block, :length] = found
                    if now is not None:
                        after["keys"][block, :, :size], after["logits"][block, :size] = now
            return Prediction(logits, after)

    def key(self, x: Tensor, state: State, rows: Tensor | None = None) -> Tensor:
        """Return ``[n, 1 + 2L]`` int16: design, tokens, and the order in which they were revealed.

        The order includes what ``x`` reveals, so the key of a state is the same before and after it was called.
        """
        known = state["condition"] if rows is None else state["condition"][rows]
        ranks = self._advance(x, state, rows)
        return torch.cat([known[:, None].to(torch.int16), x.to(torch.int16), ranks], dim=1)

    def nll(self, tokens: Tensor, *, orders: int = 1, seed: int = 0, condition: Design | None = None) -> Tensor:
        """Return the negative log-likelihood of every residue of full sequences.

        Each random order of the variables is one pass; every residue is scored by its own distribution, without bias,
        at temperature 1, given the fixed residues and what comes before it. Tied residues stand at one place of the
        order. As in the package's own score, the distribution is over 21 columns, X among them.

        Args:
            tokens: ``[n, R_out]`` int64 in 0..19, the residues of the designed chains as `decode` gives them. What
                stands at fixed residues is not read: they are what the design says.
            orders: how many random orders to average over.
            seed: of the orders. They are the same for every sequence.
            condition: the design; None takes the one that the model was made with.

        Returns:
            ``[n, R_out]`` float32 in nats, the mean over orders; 0 at fixed residues. They are where ``tokens`` are.
        """
        if orders < 1:
            raise ValueError(f"orders: expected 1 or more, got {orders}")
        prepared = self._condition(self._index(condition))
        layout, decoder = prepared.layout, prepared.decoder
        _check_tokens("tokens", tokens, len(layout.output))
        device, maps = self.device, layout.on(self.device)
        given = tokens.to(device)[:, maps.slot]
        if given.numel():
            most = None if deferring() else int(given.max())
            require(
                given < self.vocab,
                given,
                lambda _, value: ValueError(
                    f"tokens: expected 0..{self.vocab - 1} at designed residues, got {int(value) if most is None else most}"
                ),
            )
        if deferring():
            given = given.clamp(0, self.vocab - 1)
        out = torch.zeros(tokens.shape, dtype=torch.float32, device=device)
        with inference(device):
            for order in _orders(layout.length, orders, seed, device)[:, maps.owner].unbind():
                for block in torch.split(torch.arange(len(tokens), device=device), max(1, self._rows // decoder.size)):
                    ranks = order.expand(len(block), -1)
                    keys = decoder.keys(len(block))
                    logits = decoder.run(given[block], ranks, torch.arange(ranks.numel(), device=device), keys)
                    log_p = logits.log_softmax(1).gather(1, given[block].reshape(-1, 1))
                    out[block[:, None], maps.slot] -= log_p.view(ranks.shape)
        return (out / orders).to(tokens.device)

    def length_of(self, condition: Design | None = None) -> int:
        """Return the number of variables of a design; it is registered, so that states made later are wide enough.

        On a GPU it is made ready too, so that a run, which asks first of all, copies no constants on its way.
        """
        index = self._index(condition)
        if self.device.type != "cpu":
            self._condition(index)
        return self._layouts[index].length

    def decode(self, x0: Tensor, condition: Design | None = None) -> Tensor:
        """Return the residues of the designed chains, ``[n, R_out]`` int64, for variables ``x0`` ``[n, L]``.

        States that are padded to the longest design of a batch are taken as they are.
        """
        layout = self._layouts[self._index(condition)]
        _check_tokens("x0", x0, layout.length if x0.ndim == 2 and x0.shape[1] == layout.length else self.length)
        return layout.expand(x0)

    def decode_soft(self, x0: Tensor, condition: Design | None = None) -> Tensor:
        """Return the soft residues of the designed chains, ``[n, R_out, 20]``, for weights ``[n, L, 20]`` of the variables.

        Fixed residues are one-hot; one whose amino acid is unknown has no weight.
        """
        layout = self._layouts[self._index(condition)]
        return layout.expand_soft(x0[:, : layout.length])

    def sequences(self, x: Tensor, condition: Design | None = None) -> list[str]:
        """Return what `decode` gives as letters, a slash between chains, X where ``x`` is masked."""
        return self._layouts[self._index(condition)].text(self.decode(x, condition))

    def _index(self, design: Design | None) -> int:
        if design is not None:
            return self.register(design)
        if not self._layouts:
            raise ValueError("condition: the model was made without a design; give one here or to ProteinMPNN(design)")
        return 0

    def _condition(self, index: int) -> Condition:
        """Return a design made ready, and forget those used longest ago where memory is short."""
        if index not in self._conditions:
            with inference():
                self._conditions[index] = Condition(self._weights, self._layouts[index]).to(self.device)
        self._conditions.move_to_end(index)
        while len(self._conditions) > 1 and sum(c.decoder.nbytes for c in self._conditions.values()) > self.memory:
            self._conditions.popitem(last=False)
        return self._conditions[index]

    def _merged(self, new: Cached, mine: Tensor, after: State, block: Tensor) -> Cached:
        """Return what is known of rows ``block``: new where they are of the design that was computed, ``mine`` ``[b, 1]``."""
        size = new.logits.shape[1]
        keys = torch.where(mine[..., None, None], new.keys, after["keys"][block, :, :size])
        return Cached(keys, torch.where(mine[..., None], new.logits, after["logits"][block, :size]))

    @property
    def _rows(self) -> int:
        return _ROWS if self.device.type == "cpu" else _GPU_ROWS

    def _shares(self, known: Tensor) -> list[tuple[int, Tensor]]:
        """Return the designs that rows of designs ``known`` ``[n]`` may be of, and which rows to compute for each.

        Where the host reads nothing, and `of` has not told it, every row is computed for each of several designs.
        """
        if len(known) == 0:
            return []
        several = self._only is None and len(self._layouts) > 1
        if several and not deferring():
            return [(i, (known == i).nonzero().squeeze(1)) for i in torch.unique(known).tolist()]
        everyone = torch.arange(len(known), device=known.device)
        return [(i, everyone) for i in (range(len(self._layouts)) if several else [self._only or 0])]

    def _advance(self, x: Tensor, state: State, rows: Tensor | None) -> Tensor:
        """Return the ranks ``[n, L]`` once ``x`` is revealed: what is new gets the next rank of its row."""
        ranks = state["ranks"] if rows is None else state["ranks"][rows]
        for name, tensor in (("x", x), ("state", ranks)):
            if tensor.device != self.device:
                raise ValueError(
                    f"{name}: it is on {tensor.device} and the network on {self.device}; make the network with device=, "
                    "move it by to(), or give it states of its own device"
                )
        _check_tokens("x", x, ranks.shape[1])
        if len(x) != len(ranks):
            raise ValueError(f"x: {len(x)} rows continue {len(ranks)} rows of the state; give as many, or rows")
        masked, unknown = x == MASK, ranks == MASKED
        wrong = (masked & ~unknown).any(1)
        if len(x):
            require(
                ~wrong,
                wrong,
                lambda particle, _: ValueError(
                    f"x: row {particle} masks a position that its state has revealed; start from init() instead"
                ),
            )
        following = ranks.masked_fill(unknown, -1).amax(1, keepdim=True) + 1
        return torch.where(unknown & ~masked & self._inside(state, rows), following, ranks)

    def _inside(self, state: State, rows: Tensor | None) -> Tensor:
        """Return ``[n, L]`` bool: which columns are variables of the row's design and not padding."""
        known = state["condition"] if rows is None else state["condition"][rows]
        return torch.arange(state["ranks"].shape[1], device=self.device) < self._lengths[known, None]


def _check_tokens(name: str, tokens: Tensor, length: int) -> None:
    if tokens.dtype != torch.int64 or tokens.ndim != 2 or tokens.shape[1] != length:
        raise ValueError(f"{name}: expected int64 [n, {length}], got {tokens.dtype} {list(tokens.shape)}")
    if not tokens.numel():
        return
    known = None if deferring() else tokens  # they are not kept for a check that is read later

    def report(_: int, value: float) -> ValueError:
        found = f"{int(value)}" if known is None else f"{int(known.min())}..{int(known.max())}"
        return ValueError(f"{name}: expected tokens 0..{MASK}, got {found}")

    require((tokens >= 0) & (tokens <= MASK), tokens, report)


def _numbered(device: torch.device | str) -> torch.device:
    """Return a device as tensors name theirs: "cuda" is the current one of several."""
    return torch.empty(0, device=device).device


@lru_cache(maxsize=16)
def _orders(length: int, orders: int, seed: int, device: torch.device) -> Tensor:
    """Return when each variable is revealed in random orders, ``[orders, length]`` int16.

    They are drawn on the CPU, the same for all devices; they are kept, as a captured graph can make no copies of main memory.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack([torch.randperm(length, generator=generator).argsort() for _ in range(orders)]).to(torch.int16)
    if device.type != "cuda":
        return drawn.to(device)
    # From pinned memory, so that nobody waits for what is at work on the device.
    return drawn.pin_memory().to(device, non_blocking=True)
