r"""Sequential Monte Carlo: Feynman–Kac steering, particle filtering, twisted SMC with the model as its own proposal.

Each particle has one child. Every lineage carries a potential Φ, and a weight grows by

    w = [p/q] · exp(Φ_{t−1}(child) − Φ_t(parent)),   Φ before the first value is 0, Φ_0 is the reward: r(x_0) / alpha.

The weights of a lineage telescope to ``exp(r(x_0) / alpha)`` whatever Φ was on the way: the weighted samples are consistent and
``E[Ẑ] = E_p[exp(r / alpha)]`` exactly. A group resamples when its effective sample size falls below ``ess_threshold · N``;
groups decide on their own, and weights that are not resampled are carried. With ``u = v_t / alpha_t`` and M the largest u of
the lineage so far, or their sum S,

| potential | Φ_t | log-weight of a step |
|---|---|---|
| ``"difference"`` | u | the change of u |
| ``"max_difference"`` | M | the rise of M: a lineage is never punished for a worse look-ahead |
| ``"max"``, ``"sum"`` | Φ_{t+1} + M, Φ_{t+1} + S | M, S: presses harder and harder; the last weight takes it all back |

Use ``"difference"`` unless values fluctuate wildly from step to step. ``"max"`` and ``"sum"`` have the same target but by far
the largest variance. ``value_steps`` saves rewards: where no value is read Φ stays, and the target does too.

**Tempering.** ``alphas`` gives ``alpha_t`` of the first steps (``alpha`` thereafter): a large one first keeps poor early values
from deciding. ``target_ess`` finds it, for each group: ``1 / alpha_t`` rises, at most to ``1 / alpha``, until the cumulative
weights have that effective sample size; it stays where all values are equal, as they tell nothing.

Use SMC for weighted samples of the target and its normaliser. Where few lineages survive, use more particles or `NestedSMC`.

Sources: Singhal et al., 2501.06848 (potentials); Uehara et al., 2501.09685, section 3; Kim et al., 2501.05803 (tempering).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fastguide import clock, ops
from fastguide.guidance.protocol import State, check_alpha, check_resampling, check_steps, reads_values, start
from fastguide.guidance.tempering import check_alphas, check_target_ess, highest

POTENTIALS = ("difference", "max", "sum", "max_difference")


@dataclass(frozen=True)
class SMC:
    """Resample the whole group by importance weights when they become uneven.

    Args:
        alpha: temperature of the tilt, in units of the reward; > 0.
        ess_threshold: resample when ESS < ``ess_threshold · N``; 0 never (plain importance sampling), 1 at every step
            unless all weights are equal.
        rule: ``"systematic"``, ``"stratified"``, ``"multinomial"`` or ``"residual"``, all unbiased.
        potential: ``"difference"``, ``"max"``, ``"sum"`` or ``"max_difference"``.
        value_steps: after how many steps (0: the noise) values are read, ``range(10, 50, 5)`` for example; None is always.
        alphas: temperatures of the values after 0, 1, … steps; ``alpha`` where there is none, and for the reward.
        target_ess: find the temperatures so that ESS falls no further than to this fraction of N, at most ``ess_threshold``.
    """

    alpha: float = 1.0
    ess_threshold: float = 0.5
    rule: str = "systematic"
    potential: str = "difference"
    value_steps: Collection[int] | None = None
    alphas: Sequence[float] = ()
    target_ess: float | None = None

    branch: ClassVar[int] = 1
    consistent: ClassVar[bool] = True
    estimates_normalizer: ClassVar[bool] = True
    follows_clock: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", check_alpha(self.alpha, positive=True))
        object.__setattr__(self, "ess_threshold", check_resampling(self.ess_threshold, self.rule, "SMC"))
        if self.potential not in POTENTIALS:
            raise ValueError(f"potential: unknown {self.potential!r}; choose one of {', '.join(POTENTIALS)}")
        object.__setattr__(self, "value_steps", check_steps("value_steps", self.value_steps))
        object.__setattr__(self, "alphas", check_alphas(self.alphas))
        object.__setattr__(self, "target_ess", check_target_ess(self.target_ess, self.ess_threshold, self.alphas))

    def begin(self, values: Tensor) -> State:
        """Weigh the particles at t = 1 by ``exp(Φ_T)``: for ``"difference"``, ``exp(v_T / alpha)``."""
        zero, groups = torch.zeros_like(values), len(values)
        lowest = zero if self.potential == "sum" else torch.full_like(values, -torch.inf)
        state = start(zero, zero)._replace(carried=(zero, lowest, values.new_zeros(groups)))
        if not reads_values(self, 0):
            return state
        beta = self._beta(state, values, None, 0)
        score, running = self._score(state, values, beta)
        log_weights = torch.where(score == -torch.inf, score, self._unit(beta)[:, None] * score)
        return start(values, log_weights)._replace(carried=(score, running, beta))

    def step(
        self, state: State, values: Tensor, *, seeds: Tensor, log_ratio: Tensor | None = None, final: bool = False
    ) -> tuple[State, Tensor]:
        """Reweight by the change of potential and resample the groups whose weights are uneven; the last step only weighs."""
        if not state.carried:  # other guidance left it (see Scheduled)
            state = state._replace(carried=(state.values, state.values, torch.full_like(state.log_z, 1.0 / self.alpha)))
        before, running, beta = state.carried
        values, unit = values[..., 0], self._unit(beta)
        ratio = None if log_ratio is None else log_ratio[..., 0]
        if final:
            score, new_unit = values, torch.full_like(beta, 1.0 / self.alpha)
        elif reads_values(self, state.step + 1):
            beta = self._beta(state, values, ratio, state.step + 1)
            score, running = self._score(state, values, beta)
            new_unit = self._unit(beta)
        else:
            score, new_unit, values = before, unit, state.values
        out = ops.reweight_select(
            state.log_weights, score, before, new_unit, unit, log_ratio=ratio, running=None if score is values else values,
            rule=self.rule, ess_threshold=0.0 if final else self.ess_threshold, seed=seeds, step=clock.number(state.step),
            degenerate="keep",
        )  # fmt: skip
        children = out.ancestors.to(torch.int64)
        running = out.values if running is score else running.gather(1, children)
        values = out.values if out.running is None else out.running
        carried = (out.values, running, beta)
        log_z = state.log_z + out.log_z_increment
        return State(out.log_weights, values, log_z, out.ess, out.resampled, state.step + 1, carried), children

    def _unit(self, beta: Tensor) -> Tensor:
        """Return ``[G]`` in which unit a score is: ``Φ = unit · score``; the score of ``"difference"`` is the value itself."""
        return beta if self.potential == "difference" else torch.ones_like(beta)

    def _score(self, state: State, values: Tensor, beta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the score, and what of the lineage goes on (M or S), from values at inverse temperatures ``beta`` ``[G]``."""
        if self.potential == "difference":
            return values, values
        before, running, _ = state.carried
        u = torch.where(values == -torch.inf, -torch.inf, beta[:, None] * values)
        running = running + u if self.potential == "sum" else torch.maximum(running, u)
        return (running if self.potential == "max_difference" else before + running), running

    def _beta(self, state: State, values: Tensor, log_ratio: Tensor | None, step: int) -> Tensor:
        """Return the inverse temperature ``[G]`` of the values after ``step`` steps."""
        before, _, lowest = state.carried
        if self.target_ess is None:
            beta = 1.0 / clock.entry((*self.alphas, self.alpha), step)
            return beta.expand_as(lowest) if isinstance(beta, Tensor) else torch.full_like(lowest, beta)

        def ess(beta: Tensor) -> Tensor:
            score, _ = self._score(state, values, beta)
            return ops.reweight_select(
                state.log_weights, score, before, self._unit(beta), self._unit(lowest), log_ratio=log_ratio,
                ess_threshold=0.0, degenerate="keep",
            ).ess  # fmt: skip

        beta = highest(ess, self.target_ess * values.shape[1], lowest, 1.0 / self.alpha)
        alive = (state.log_weights > -torch.inf) & (values > -torch.inf)
        most, least = torch.where(alive, values, -torch.inf).amax(1), torch.where(alive, values, torch.inf).amin(1)
        return torch.where(most > least, beta, lowest)
