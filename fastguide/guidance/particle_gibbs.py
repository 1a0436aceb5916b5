r"""Particle Gibbs: SMC that is run again and again around a trajectory it retains (iterated conditional SMC).

In a sweep, slot 0 follows the retained trajectory and the other N − 1 particles are drawn as by `SMC`; when a group resamples,
slot 0 keeps the retained one and every other slot draws from *all* N weights, multinomially. (Systematic draws with slot 0
overwritten afterwards are not this kernel: their law is wrong at any number of sweeps.) The next retained trajectory is drawn
from the N final ones by their weights.

The sweeps are a Markov chain whose invariant law is the target, for any N ≥ 2 and any values on the way. So a small N and many
sweeps go to the exact target, where SMC at the same N stays as far as its N allows.

Sources: Andrieu, Doucet and Holenstein, 2010, section 2.4.3; 2507.08390 for diffusion language models.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from fastguide import ops
from fastguide.guidance.protocol import State, check_alpha, check_resampling, seeds_of_pass, start

if TYPE_CHECKING:
    from fastguide.result import Result
    from fastguide.run import Run


@dataclass(frozen=True)
class ParticleGibbs:
    """Sweep with conditional SMC; the samples are those of all sweeps after ``burn_in``, each sweep's weights summing to 1.

    ``result.trace`` has the steps of all sweeps one after the other, ``result.ancestry`` the genealogy of the last. Its
    ``budget`` holds for the first sweep; later ones are not begun when what is left does not pay for one without guidance.

    Args:
        alpha: temperature of the tilt, in units of the reward; > 0.
        sweeps: how often the N particles are run, at least 1.
        burn_in: sweeps whose samples are left out, fewer than ``sweeps``.
        ess_threshold: resample when ESS < ``ess_threshold · N``; 0 never, 1 at every step unless all weights are equal.
    """

    alpha: float = 1.0
    sweeps: int = 20
    burn_in: int = 1
    ess_threshold: float = 0.5

    branch: ClassVar[int] = 1
    consistent: ClassVar[bool] = True
    estimates_normalizer: ClassVar[bool] = False
    value_steps: ClassVar[Collection[int] | None] = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "alpha", check_alpha(self.alpha, positive=True))
        object.__setattr__(self, "ess_threshold", check_resampling(self.ess_threshold, "multinomial", "ParticleGibbs"))
        for name, least in (("sweeps", 1), ("burn_in", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}: expected a whole number of at least {least}, got {value!r}")
        if self.burn_in >= self.sweeps:
            raise ValueError(f"burn_in: expected fewer than sweeps = {self.sweeps}, got {self.burn_in}")

    def begin(self, values: Tensor) -> State:
        """Weigh the particles at t = 1 by ``exp(v_T / alpha)``."""
        if values.shape[1] < 2:
            raise ValueError("particles: ParticleGibbs needs at least 2, one of which is the retained one")
        return start(values, values / self.alpha)

    def step(
        self, state: State, values: Tensor, *, seeds: Tensor, log_ratio: Tensor | None = None, final: bool = False
    ) -> tuple[State, Tensor]:
        """Take a step of conditional SMC: slot 0 keeps its place."""
        n, beta = values.shape[1], 1.0 / self.alpha
        out = ops.reweight_select(
            state.log_weights, values[..., 0], state.values, beta, beta,
            log_ratio=None if log_ratio is None else log_ratio[..., 0], ess_threshold=0.0, degenerate="keep",
        )  # fmt: skip
        resampled = (out.ess < self.ess_threshold * n) & (not final)
        same = torch.arange(n, device=values.device).expand_as(out.log_weights)
        drawn = self._parents(out.log_weights, seeds, state.step)
        children = torch.where(resampled[:, None], drawn, same)
        log_weights = torch.where(resampled[:, None], 0.0, out.log_weights)
        kept = out.values.gather(1, children)
        return State(log_weights, kept, state.log_z, out.ess, resampled, state.step + 1), children

    def _parents(self, log_weights: Tensor, seeds: Tensor, step: int) -> Tensor:
        """Return ``[G, N]``: slot 0 itself, and for every other slot a draw from all N weights."""
        count = log_weights.shape[1] - 1
        drawn = ops.select(log_weights, count, rule="multinomial", seed=seeds, step=step, degenerate="keep").ancestors
        return torch.nn.functional.pad(drawn.to(torch.int64), (1, 0))

    def drive(self, run: Run) -> Result:
        """Run the sweeps and pool their samples."""
        seeds, groups, particles = run.steering.seeds, run.steering.groups, run.steering.particles
        results: list[Result] = []
        retained = None
        for sweep in range(self.sweeps):
            if sweep > 0:
                if not run.affords_pass():
                    break
                run = run.again(self, seeds_of_pass(seeds, sweep))
            run.retained, run.history = retained, []
            results.append(run.sample())
            retained = self._draw(results[-1], run.history, groups, run.steering.seeds)
        kept = results[self.burn_in :] or results[-1:]
        weights = torch.stack([torch.log_softmax(r.log_weights.view(groups, -1), 1) for r in kept], 1)
        last = results[-1]
        return replace(
            last,
            samples=torch.stack([r.samples.view(groups, particles, -1) for r in kept], 1).reshape(
                -1, *last.samples.shape[1:]
            ),
            log_weights=weights.nan_to_num(nan=-torch.inf).reshape(-1),
            rewards=torch.stack([r.rewards.view(groups, -1) for r in kept], 1).reshape(-1),
            trace=type(last.trace)(step for r in results for step in r.trace),
            seeds=seeds,
            seconds=sum(r.seconds for r in results),
            _replay=None,
        )

    def _draw(self, result: Result, history: list[Tensor], groups: int, seeds: Tensor) -> Tensor:
        """Return ``[T + 1, G, *shape]``: a trajectory of each group, drawn by the final weights."""
        weights = result.log_weights.view(groups, -1)
        chosen = ops.select(weights, 1, rule="multinomial", seed=seeds, step=len(history), degenerate="keep").ancestors
        slot, first = chosen.to(torch.int64), torch.arange(groups, device=seeds.device) * weights.shape[1]
        path = [history[-1][first + slot[:, 0]]]
        for states, parents in zip(reversed(history[:-1]), reversed(result.ancestry.parents), strict=True):
            slot = parents.to(slot.device).gather(1, slot)
            path.append(states[first + slot[:, 0]])
        return torch.stack(path[::-1])
