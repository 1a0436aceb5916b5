r"""Sequential Monte Carlo: Feynman–Kac steering, particle filtering, twisted SMC with the model as its own proposal.

Each particle has one child. Its weight grows by

    w = [p/q] · exp((v_{t−1}(child) − v_t(parent)) / alpha),

with ``exp(v_T / alpha)`` first and the reward itself as the last value, so that the weights of a lineage telescope to
``exp(r(x_0) / alpha)`` whatever the intermediate values were: the weighted samples are consistent and
``E[Ẑ] = E_p[exp(r / alpha)]`` exactly. A group resamples when its effective sample size falls below ``ess_threshold · N``;
groups decide on their own, and weights that are not resampled are carried.

Use it for weighted samples of the target and an estimate of its normaliser. With a small ``alpha`` few lineages survive: then
use more particles, or `SVDD`, which cannot collapse.

Sources: Singhal et al., 2501.06848 (difference potential); Uehara et al., 2501.09685, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fastguide import ops
from fastguide.guidance.protocol import State, check_alpha, start

_RULES = ("systematic", "stratified", "multinomial", "residual")


@dataclass(frozen=True)
class SMC:
    """Resample the whole group by importance weights when they become uneven.

    Args:
        alpha: temperature of the tilt, in units of the reward; > 0.
        ess_threshold: resample when ESS < ``ess_threshold · N``; 0 never (plain importance sampling), 1 at every step
            unless all weights are equal.
        rule: ``"systematic"``, ``"stratified"``, ``"multinomial"`` or ``"residual"``, all unbiased.
    """

    alpha: float = 1.0
    ess_threshold: float = 0.5
    rule: str = "systematic"

    branch: ClassVar[int] = 1
    consistent: ClassVar[bool] = True
    estimates_normalizer: ClassVar[bool] = True
    uses_values: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", check_alpha(self.alpha, positive=True))
        if not 0.0 <= self.ess_threshold <= 1.0:
            raise ValueError(f"ess_threshold: expected a fraction in [0, 1], got {self.ess_threshold!r}")
        if self.rule not in _RULES:
            raise ValueError(f"rule: SMC needs an unbiased rule, one of {', '.join(_RULES)}; got {self.rule!r}")

    def begin(self, values: Tensor) -> State:
        """Weigh the particles at t = 1 by ``exp(v_T / alpha)``."""
        return start(values, values / self.alpha)

    def step(
        self, state: State, values: Tensor, *, seeds: Tensor, log_ratio: Tensor | None = None, final: bool = False
    ) -> tuple[State, Tensor]:
        """Reweight by the change of value and resample the groups whose weights are uneven; the last step only weighs."""
        beta = 1.0 / self.alpha
        out = ops.reweight_select(
            state.log_weights,
            values[..., 0],
            state.values,
            beta,
            beta,
            log_ratio=None if log_ratio is None else log_ratio[..., 0],
            rule=self.rule,
            ess_threshold=0.0 if final else self.ess_threshold,
            seed=seeds,
            step=state.step,
            degenerate="keep",
        )
        log_z = state.log_z + out.log_z_increment
        state = State(out.log_weights, out.values, log_z, out.ess, out.resampled, state.step + 1)
        return state, out.ancestors.to(torch.int64)
