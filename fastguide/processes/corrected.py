r"""Weights that make the steps of a product of models sample the product of their laws (Feynman–Kac correctors).

Drawing each step of a `fastguide.models.Product` from its own normalised law does not draw from ``Π_i p_i(x_0)^{w_i}``. The
log-weight of a step makes up for it.

**Tokens.** A position l that is revealed draws from ``Π_i p_i(y)^{w_i} / C_l``, so the ratio of the target's step to the
proposal's is ``C_l``, and the log-weight of a step ``Σ_l log C_l`` over the positions it reveals, ``log C_l`` being
``logsumexp_y Σ_i w_i log p_i(y)``. With temperature τ the exponents are ``w_i / τ``; a bias is one more factor, and truncation
leaves tokens out. This is exact at any number of steps, for the target *as run*: a clean sample weighs

    Σ_orders P(order) · Π_steps Π_l Π_i p_i(y_l | x_t)^{w_i},     l revealed in the step, x_t the state before it.

Where one position is revealed a step (``reveal="count"``, as many steps as positions) and the experts are exact conditionals of
joint laws, that is ``Π_i p_i(x_0)^{w_i}``, and ``log_normalizer`` estimates the log of its sum (with ``exp(r / alpha)``).

**Real states.** The score ``S = Σ_i w_i s_i`` in place of one model's gives each step the log-weight

    ½ h (‖S‖² − Σ_i w_i ‖s_i‖²),     h = σ_t² − (α_t / α_s)² σ_s²,

h the noise that the forward process adds between the two levels, and the first states are noise of variance ``σ² / Σ w``. It
is the drift of the log-weight of a continuous path: the target is ``Π_i p_i(x_0)^{w_i}`` in the limit of many steps, and
``log_normalizer`` is that of the product where the exponents sum to 1, otherwise up to a constant. Where they do not, the
noise itself is weighed, and a step that takes too much of it at a time (the first of ``"cosine"``) is refused.

Source: Skreta et al., 2503.02819 (real states); the same ratio of path laws gives that of tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastguide.models.product import Product
from fastguide.models.protocol import Denoiser
from fastguide.processes.gaps import Around, BoundWithGap, WithGap, check_shares
from fastguide.processes.gaussian import GaussianProcess
from fastguide.processes.masked import MaskedProcess
from fastguide.processes.protocol import Bound, Constraints
from fastguide.reference.categorical import scale_logits


@dataclass(frozen=True)
class Corrected:
    """A process whose steps are weighed so that a product of models samples the product of their laws.

    Args:
        process: a `MaskedProcess` without remasking, or a `GaussianProcess` of first order without ``clip_x0``.
        product: what it is run with.
    """

    process: Any
    product: Product

    def __post_init__(self) -> None:
        process, total = self.process, sum(self.product.exponents)
        if isinstance(process, MaskedProcess):
            if process.remask > 0:
                raise ValueError("process: tokens that return to the mask have no correction; give remask=0")
            return
        if not isinstance(process, GaussianProcess):
            raise TypeError(
                f"corrected: a correction is known for MaskedProcess and GaussianProcess, not for {type(process).__name__}"
            )
        if process.multistep or process.clip_x0 is not None:
            raise ValueError(
                "process: a correction needs the score of each state as it is; take a sampler of first order, no clip_x0"
            )
        if total <= 0:
            raise ValueError(f"exponents: of real states their sum has to be positive, got {total:g}")
        if abs(total - 1.0) > 1e-9 and process.prediction not in ("eps", "score"):
            raise ValueError(
                f"exponents: they sum to {total:g}, and outputs of {process.prediction!r} are combined only where they sum to "
                '1; take a model that predicts "eps" or "score"'
            )
        check_shares(process, total)

    def __getattr__(self, name: str) -> Any:
        # All else is the process's own. A copy that is being made has none yet.
        if name.startswith("_") or "process" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.process, name)

    @property
    def steps(self) -> int:
        """Reverse steps T."""
        return int(self.process.steps)

    @property
    def times(self) -> tuple[float, ...]:
        """The ``T + 1`` noise levels that the denoiser is told."""
        return tuple(self.process.times)

    def wrap(self, denoiser: Denoiser) -> Denoiser:
        """Return the denoiser that a run calls."""
        return denoiser if isinstance(self.process, MaskedProcess) else WithGap(self.product, self.process)

    def bind(
        self, constraints: Constraints, *, groups: int, particles: int, seeds: Tensor, device: torch.device
    ) -> Bound:
        """Return the process of a run."""
        bound = self.process.bind(constraints, groups=groups, particles=particles, seeds=seeds, device=device)
        if isinstance(self.process, MaskedProcess):
            return BoundCorrected(bound)
        total = sum(self.product.exponents)
        if constraints.x_init is not None and total != 1.0:
            raise ValueError(f"x_init: exponents that sum to {total:g} start from noise of their own; leave it out")
        return BoundWithGap(bound, total)


class BoundCorrected(Around):
    """A masked process of a run, and the log-weight of what it draws; see `fastguide.processes.protocol.Bound`."""

    def log_correction(
        self, children: Tensor, x: Tensor, output: Tensor, *, step: int, group: Tensor, ancestors: Tensor
    ) -> Tensor:
        """Return ``[P, M]`` float64: ``Σ log C`` over the positions that the step revealed."""
        process = self.bound.process
        alive, row = torch.unique(ancestors, return_inverse=True)
        x, output = x[alive], output[alive]
        # A state is that of several groups only if these are of one length.
        owner = torch.zeros_like(alive).scatter(0, row, group.repeat_interleave(len(row) // len(group)))
        log_p = self.bound.log_probs(x, output, group=owner)
        scaled = scale_logits(output, self.bound.bias, 1.0 / process.temperature)
        # Scaled logits less log-probabilities are the log-normaliser, at every token that is kept.
        most = log_p.argmax(-1, keepdim=True)
        log_c = (scaled.gather(-1, most).double() - log_p.gather(-1, most).double())[..., 0]
        revealed = (x[row] == process.mask)[:, None] & (children != process.mask)
        return torch.where(revealed, log_c[row][:, None], 0.0).sum(-1)
