r"""Products of pretrained models: annealing, classifier-free guidance, experts that have to agree.

What is drawn from is ``Π_i p_i(x)^{w_i}``, step by step: of tokens ``softmax(Σ_i w_i log p_i)`` at every position, of real
states the score ``Σ_i w_i s_i``. One model and one exponent is annealing; ``[g, 1 − g]`` of a model with and without its
condition is classifier-free guidance, which `classifier_free` makes of one network in one call.

The samples of such steps are *not* those of the product of the laws, as each step normalises by itself. ``corrected=True``
weighs them so that they are: see `fastguide.processes.corrected`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fastguide.models.protocol import Denoiser, Prediction, State, wrap


class Product(Denoiser):
    """The product of the laws of several denoisers, each to a power.

    Tokens: the output is ``Σ_i w_i log_softmax(logits_i)``, not normalised; a token that an expert of nonzero exponent forbids
    is forbidden. Real states: ``Σ_i w_i output_i``, which is the product's for outputs that are linear in the score (noise,
    score), and for all where the exponents sum to 1. Every expert is told the same condition.

    Args:
        denoisers: the experts; a plain callable is wrapped.
        exponents: w, one for each, negative ones included.
        corrected: weigh each step so that the target is ``Π_i p_i(x_0)^{w_i} exp(r(x_0) / alpha)``; it takes guidance with
            weights, such as `fastguide.SMC`. Without it the target is the law of the steps as drawn, times ``exp(r / alpha)``.

    Raises:
        ValueError: there is no denoiser, or not one finite exponent for each.
    """

    def __init__(
        self,
        denoisers: Sequence[Denoiser | Callable[..., Any]],
        exponents: Sequence[float],
        *,
        corrected: bool = False,
    ) -> None:
        self.denoisers = tuple(wrap(d) for d in denoisers)
        self.exponents = tuple(float(w) for w in exponents)
        if not self.denoisers or len(exponents) != len(self.denoisers) or not all(map(math.isfinite, self.exponents)):
            raise ValueError(
                f"exponents: expected a finite number for each of {len(self.denoisers)} denoisers (at least one), got "
                f"{list(exponents)}"
            )
        self.corrected = corrected
        self.batch_invariant = all(d.batch_invariant for d in self.denoisers)
        self.differentiable = all(d.differentiable for d in self.denoisers)

    def init(self, n: int, condition: Any = None) -> State:
        """Return the states of all experts."""
        return tuple(d.init(n, condition) for d in self.denoisers)

    def experts(
        self, x: Tensor, t: Tensor, state: State = None, rows: Tensor | None = None
    ) -> tuple[list[Tensor], State]:
        """Return what each expert says of ``x``, and their states."""
        states = (None,) * len(self.denoisers) if state is None else state
        found = [d(x, t, s, rows) for d, s in zip(self.denoisers, states, strict=True)]
        return [out.output for out in found], tuple(out.state for out in found)

    def combine(self, x: Tensor, outputs: Sequence[Tensor]) -> Tensor:
        """Return float32 the product's output, of what each expert says of ``x``."""
        tokens = outputs[0].shape != x.shape
        total = torch.zeros(outputs[0].shape, dtype=torch.float32, device=x.device)
        for weight, output in zip(self.exponents, outputs, strict=True):
            if weight == 0:  # 0 · −inf would be nan
                continue
            if not tokens:
                total = total + weight * output.float()
                continue
            log_p = torch.log_softmax(output.float(), dim=-1)
            total = torch.where(log_p == -torch.inf, -torch.inf, total + weight * log_p)
        return total

    def __call__(self, x: Tensor, t: Tensor, state: State = None, rows: Tensor | None = None) -> Prediction:
        """Predict by all experts."""
        outputs, after = self.experts(x, t, state, rows)
        return Prediction(self.combine(x, outputs), after)

    def move(self, state: State, ancestors: Tensor) -> State:
        """Move the states of all experts."""
        return tuple(d.move(s, ancestors) for d, s in zip(self.denoisers, state, strict=True))

    def key(self, x: Tensor, state: State, rows: Tensor | None = None) -> Tensor:
        """Return what identifies the calls of all experts."""
        states = (None,) * len(self.denoisers) if state is None else state
        keys = [d.key(x, s, rows).to(torch.int64) for d, s in zip(self.denoisers, states, strict=True)]
        return torch.cat(keys, dim=1)

    def length_of(self, condition: Any = None) -> int | None:
        """As the first expert says."""
        return self.denoisers[0].length_of(condition)

    def decode(self, x0: Tensor, condition: Any = None) -> Any:
        """As the first expert does."""
        return self.denoisers[0].decode(x0, condition)

    def decode_soft(self, x0: Tensor, condition: Any = None) -> Tensor:
        """As the first expert does."""
        return self.denoisers[0].decode_soft(x0, condition)
