r"""Nested SMC: SMC whose particles look at M children each before they go on.

    w^{n,m} = [p/q] · exp((v_{t−1}(child m of n) − v_t(n)) / alpha),     W^n = mean over m of w^{n,m}.

Parents are weighed by W^n and, where a group's effective sample size is low, resampled first; then each copy draws a child of
its own with probability ∝ w^{n,·}. It is the *mean* that is the weight of the chosen child: with the child's own weight the
normaliser would be biased upwards. Like SMC it is consistent for any M and any values, and ``E[Ẑ] = E_p[exp(r / alpha)]``.

It is SVDD with its bias taken out. Use it where a single child seldom improves (sharp rewards, small ``alpha``) and values are
good: M children make each step nearly the soft-optimal one, at M times the cost. With poor values spend the same budget on more
particles of SMC.

Sources: Naesseth, Lindsten and Schön, 1502.02536; Uehara et al., 2501.09685, section 3 (nested importance sampling).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fastguide import clock, ops
from fastguide.guidance.protocol import State, check_alpha, check_branch, check_resampling, start


@dataclass(frozen=True)
class NestedSMC:
    """Resample parents by the mean weight of their children, and draw one child of each by its own.

    Args:
        alpha: temperature of the tilt, in units of the reward; > 0.
        branch: children M per particle, at least 2.
        ess_threshold: resample the parents when ESS < ``ess_threshold · N``; 0 never, 1 at every step unless all weights are
            equal.
        rule: of the parents: ``"systematic"``, ``"stratified"``, ``"multinomial"`` or ``"residual"``, all unbiased.
    """

    alpha: float = 1.0
    branch: int = 8
    ess_threshold: float = 0.5
    rule: str = "systematic"

    consistent: ClassVar[bool] = True
    estimates_normalizer: ClassVar[bool] = True
    value_steps: ClassVar[Collection[int] | None] = None
    follows_clock: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", check_alpha(self.alpha, positive=True))
        object.__setattr__(self, "branch", check_branch(self.branch, least=2))
        object.__setattr__(self, "ess_threshold", check_resampling(self.ess_threshold, self.rule, "NestedSMC"))

    def begin(self, values: Tensor) -> State:
        """Weigh the particles at t = 1 by ``exp(v_T / alpha)``."""
        return start(values, values / self.alpha)

    def step(
        self, state: State, values: Tensor, *, seeds: Tensor, log_ratio: Tensor | None = None, final: bool = False
    ) -> tuple[State, Tensor]:
        """Weigh and resample the parents (not at the last step), then draw a child of each."""
        branch = values.shape[2]
        beta = 1.0 / self.alpha
        scores = beta * values if log_ratio is None else beta * values + log_ratio
        # Two draws a step: of parents (2k) and of children (2k + 1), which must not share their random numbers.
        step = clock.number(state.step)
        mean = ops.select(scores, 1, rule="argmax", degenerate="keep").log_mean_weight
        out = ops.reweight_select(
            state.log_weights, mean, state.values, 1.0, beta, rule=self.rule,
            ess_threshold=0.0 if final else self.ess_threshold, seed=seeds, step=2 * step, degenerate="keep",
        )  # fmt: skip
        parents = out.ancestors.to(torch.int64)
        of_parents = scores.gather(1, parents[..., None].expand_as(scores))
        drawn = ops.select(of_parents, 1, rule="multinomial", seed=seeds, step=2 * step + 1, degenerate="keep")
        children = parents * branch + drawn.ancestors[..., 0]
        kept = values.flatten(1).gather(1, children)
        log_z = state.log_z + out.log_z_increment
        return State(out.log_weights, kept, log_z, out.ess, out.resampled, state.step + 1), children
