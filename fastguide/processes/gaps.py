"""A product of Gaussian denoisers, and the gap of its experts' scores that a corrector weighs by."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from fastguide.models.product import Product
from fastguide.models.protocol import Denoiser, Prediction, State
from fastguide.processes.gaussian import GaussianProcess


def noise_share(process: GaussianProcess, step: int) -> float:
    """Return ``h / σ_t²``, the share of a state's noise that a step takes away."""
    a, s = process.alphas[step], process.sigmas_of_states[step]
    after = process.sigmas_of_states[step + 1] if step + 1 < process.steps else 0.0
    return 1.0 - (a / process.alphas[step + 1] * after / s) ** 2


def check_shares(process: GaussianProcess, total: float) -> None:
    """Raise where exponents of this sum give weights without a variance, or steps far from the continuous path.

    Noise in the first states has variance ``1 / total`` in units of theirs, and its weight is ``exp(½ share (total² − total)
    ε²)``, whose square has a mean only for ``share < ½ / (total − 1)``.
    """
    if abs(total - 1.0) < 1e-9:
        return
    most = 0.5 / max(1.0, total - 1.0)
    for step in range(process.steps - 1):
        noisy = process.sigmas_of_states[step] >= process.alphas[step]
        if noisy and noise_share(process, step) > most:
            raise ValueError(
                f"exponents: they sum to {total:g}, and step {step} takes {noise_share(process, step):.0%} of the noise, where "
                f'weights allow {most:.0%}; take more steps, or schedule="linear" or "karras"'.replace("%", " %")
            )


class Around:
    """What a bound process says, where nothing else is said."""

    def __init__(self, bound: Any) -> None:
        self.bound = bound

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or "bound" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self.bound, name)


class BoundWithGap(Around):
    """A Gaussian process of a run whose denoiser says ``[n, 2, *shape]``: the product's output, and the gap of the scores."""

    def __init__(self, bound: Any, total: float) -> None:
        super().__init__(bound)
        self.output_bytes = 2 * bound.output_bytes
        self.x = bound.x if total == 1.0 else bound.x / math.sqrt(total)

    def check(self, output: Tensor, n: int) -> None:
        """Raise unless the product's output is what the process reads."""
        self.bound.check(output[:, 0], n)

    def estimate(self, x: Tensor, output: Tensor, *, step: int, group: Tensor) -> Tensor:
        """Return the clean sample that the product's score predicts."""
        return cast(Tensor, self.bound.estimate(x, output[:, 0], step=step, group=group))

    def propose(self, x: Tensor, output: Tensor, **options: Any) -> Tensor:
        """Draw by the product's output."""
        return cast(Tensor, self.bound.propose(x, output[:, 0].contiguous(), **options))

    def log_ratio(self, children: Tensor, x: Tensor, output: Tensor, shift: Tensor, **options: Any) -> Tensor:
        """Return ``log p/q``, p the step of the product's output."""
        return cast(Tensor, self.bound.log_ratio(children, x, output[:, 0].contiguous(), shift, **options))

    def log_correction(
        self, children: Tensor, x: Tensor, output: Tensor, *, step: int, group: Tensor, ancestors: Tensor
    ) -> Tensor:
        """Return ``[P, M]`` float64 ``½ h (‖S‖² − Σ w ‖s‖²)``, the same for all children of a state."""
        gap = output[:, 1].flatten(1).double().sum(1) * (0.5 * noise_share(self.bound.process, step))
        per_child: Tensor = gap[ancestors][:, None].expand(children.shape[:2])
        return per_child


class WithGap(Denoiser):
    """Says besides the product's output, elementwise, ``(Σ w ε)² − Σ w ε²`` with ``ε = −σ s`` of each expert."""

    def __init__(self, product: Product, process: GaussianProcess) -> None:
        self.product, self.process = product, process
        self.batch_invariant, self.differentiable = product.batch_invariant, product.differentiable

    def init(self, n: int, condition: Any = None) -> State:
        """Return the product's state."""
        return self.product.init(n, condition)

    def __call__(self, x: Tensor, t: Tensor, state: State = None, rows: Tensor | None = None) -> Prediction:
        """Predict both."""
        outputs, after = self.product.experts(x, t, state, rows)
        step = int(self.process.step_of(t[:1]))  # all rows of a call stand at one level
        a, s, (p, q) = self.process.alphas[step], self.process.sigmas_of_states[step], self.process.estimates[step]
        total, squares = torch.zeros_like(x, dtype=torch.float64), torch.zeros_like(x, dtype=torch.float64)
        for weight, output in zip(self.product.exponents, outputs, strict=True):
            noise = ((1.0 - a * p) * x.double() - a * q * output.double()) / s
            total, squares = total + weight * noise, squares + weight * noise * noise
        gap = (total * total - squares).float()
        return Prediction(torch.stack([self.product.combine(x, outputs), gap], dim=1), after)

    def move(self, state: State, ancestors: Tensor) -> State:
        """As the product does."""
        return self.product.move(state, ancestors)

    def length_of(self, condition: Any = None) -> int | None:
        """As the product says."""
        return self.product.length_of(condition)

    def decode(self, x0: Tensor, condition: Any = None) -> Any:
        """As the product does."""
        return self.product.decode(x0, condition)
