r"""FK steering's class ``FKD`` (``fkd_class.py``), on `fastguide.Steering`.

    from fastguide.adapters.fkd import FKD      # was: from fkd_class import FKD

The potentials are those of `fastguide.SMC` with ``alpha = 1 / lmbda``: ``diff`` is ``"difference"``, ``max`` and ``add`` are
``"max"`` and ``"sum"``, ``rt`` (every reward weighs again, the last weight takes all back) is ``"difference"`` of the sums of
rewards along a lineage; ``is`` weighs and ``bon`` sorts at the last step only. What is right here and not there:

- weights are logarithms: no reward overflows, none is clamped at 1e10; NaN and a population without weight are errors;
- weights that are not resampled are carried (theirs are dropped, which biases ``diff``);
- the last weight makes every lineage's total ``exp(lmbda r(x_0))`` (theirs, of ``max`` and ``add``, take the largest reward or
  the sum of the rewards of a lineage for the last one's);
- the last step resamples, so that the samples are of equal weight, unless ``adaptive_resample_at_end`` asks for less; then
  `FKD.log_weights` has what is left;
- an option that does not exist is an error.

``compat=True`` does as they do in all of these but the last.

Source: Singhal et al., 2501.06848.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastguide import ops
from fastguide.adapters._seeds import torch_seed
from fastguide.errors import DegenerateWeights
from fastguide.guidance.protocol import is_number
from fastguide.guidance.smc import SMC
from fastguide.ops._checks import count
from fastguide.steering import Steering, resolve_seeds


class PotentialType(Enum):
    """How rewards on the way weigh."""

    DIFF = "diff"
    MAX = "max"
    ADD = "add"
    RT = "rt"
    BON = "bon"
    IS = "is"


_POTENTIALS = {
    PotentialType.DIFF: "difference",
    PotentialType.MAX: "max",
    PotentialType.ADD: "sum",
    PotentialType.RT: "difference",
}
_LAST_ONLY = (PotentialType.BON, PotentialType.IS)
_PIPELINE_OPTIONS = frozenset({"use_smc", "guidance_reward_fn", "metric_to_chase"})
"""Entries of the ``fkd_args`` of their pipelines that the pipelines themselves read, and pass on with the rest."""
_OWN_THRESHOLD = 0.5


class FKD:
    """Steers the particles of a loop that somebody else runs; call `resample` at every step.

    Args:
        potential_type: a `PotentialType` or its value.
        lmbda: the inverse temperature of the reward.
        num_particles: N, of each prompt.
        adaptive_resampling: resample only where the effective sample size is below N / 2.
        resample_frequency: with ``resampling_t_start`` and ``resampling_t_end``, the steps that resample:
            ``range(start, end + 1, frequency)``, and the last.
        resampling_t_start: see above.
        resampling_t_end: see above, included.
        time_steps: the number of steps; ``time_steps - 1`` is the last ``sampling_idx``.
        reward_fn: decoded samples -> ``[N]`` rewards, a tensor or a list.
        reward_min_value: the reward before the first step.
        latent_to_decode_fn: ``x0_preds`` -> what ``reward_fn`` sees.
        adaptive_resample_at_end: let the last step, too, resample only where the effective sample size is below N / 2.
        device: where rewards are weighed; the GPU where there is one, unless given.
        prompts: G populations side by side, each of N rows and on its own.
        rule: how ancestors are drawn, see `fastguide.ops.select`.
        compat: weigh as FK steering does, see the head of this file.
        **options: what FK steering's own pipelines pass on without need; anything else is refused.
    """

    def __init__(
        self,
        *,
        potential_type: PotentialType | str,
        lmbda: float,
        num_particles: int,
        adaptive_resampling: bool,
        resample_frequency: int,
        resampling_t_start: int,
        resampling_t_end: int,
        time_steps: int,
        reward_fn: Callable[[Any], Any],
        reward_min_value: float = 0.0,
        latent_to_decode_fn: Callable[[Any], Any] = lambda x: x,
        adaptive_resample_at_end: bool = False,
        device: torch.device | str | None = None,
        prompts: int = 1,
        rule: str = "systematic",
        compat: bool = False,
        **options: Any,
    ) -> None:
        _refuse(options.keys() - _PIPELINE_OPTIONS)
        if not is_number(lmbda):
            raise ValueError(f"lmbda: expected a finite number, got {lmbda!r}")
        self.potential_type = PotentialType(potential_type)
        self.lmbda = float(lmbda)
        self.num_particles = count("num_particles", num_particles)
        self.prompts = count("prompts", prompts)
        self.adaptive_resampling = adaptive_resampling
        self.adaptive_resample_at_end = adaptive_resample_at_end
        self.resample_frequency = resample_frequency
        self.resampling_t_start = resampling_t_start
        self.resampling_t_end = resampling_t_end
        self.time_steps = time_steps
        self.resampling_interval = np.append(
            np.arange(resampling_t_start, resampling_t_end + 1, resample_frequency), time_steps - 1
        )
        self.reward_fn = reward_fn
        self.latent_to_decode_fn = latent_to_decode_fn
        self.compat = compat
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self._shape = (self.prompts, self.num_particles)
        self._population = torch.full(self._shape, float(reward_min_value), device=self.device)
        self._product = torch.ones_like(self._population)
        self._last_idx_sampled = -1
        self._reached_terminal_sample = False
        self._rule = rule
        self._steering = Steering(
            SMC(
                ess_threshold=_OWN_THRESHOLD if adaptive_resampling else 1.0,
                rule=rule,
                potential=_POTENTIALS.get(self.potential_type, "difference"),
            ),
            particles=self.num_particles,
            groups=self.prompts,
            device=self.device,
        )
        from_zero = self.potential_type in (PotentialType.RT, *_LAST_ONLY)
        self._steering.begin(None if from_zero else self._population.double() * self.lmbda)
        self._log_weights = torch.zeros(self._shape, dtype=torch.float64, device=self.device)

    @property
    def population_rs(self) -> Tensor:
        """``[G * N]`` the last reward of each particle (``compat=True``, ``max`` and ``add``: the largest, the sum so far)."""
        return self._population.reshape(-1)

    @property
    def product_of_potentials(self) -> Tensor:
        """``[G * N]`` the product of the weights that were resampled, which only ``compat=True`` keeps."""
        return self._product.reshape(-1)

    @property
    def log_weights(self) -> Tensor:
        """``[G, N]`` float64 log-weights of the particles as they stand; equal where the last call resampled."""
        return self._log_weights

    @property
    def log_normalizer(self) -> Tensor:
        """``[G]`` float64, after the last step: estimates of ``log E[exp(lmbda r)]``; not with ``compat=True`` or ``bon``."""
        return self._steering.log_normalizer

    def compute_reward(self, x0_preds: Any) -> tuple[Tensor, Any]:
        """Return the rewards of decoded ``x0_preds``, a tensor, and what they were decoded to."""
        samples = self.latent_to_decode_fn(x0_preds)
        return torch.as_tensor(self.reward_fn(samples)).detach().to(self.device), samples

    def resample(self, *, sampling_idx: int, latents: Any, x0_preds: Any) -> tuple[Any, Any]:
        """Weigh and resample where ``sampling_idx`` is one of the steps that do.

        Args:
            sampling_idx: the step, increasing from call to call.
            latents: ``[G * N, ...]``, a tensor, an array or a list.
            x0_preds: estimates of the clean samples, which are decoded and scored.

        Returns:
            The latents and the decoded samples of the survivors, of the types they came in; the latents and None where
            the step does not resample.

        Raises:
            ValueError: ``sampling_idx`` does not increase; a reward is NaN or +inf; a number of latents or rewards that is
                not G * N.
            DegenerateWeights: no particle of a prompt has a weight above zero.
        """
        if sampling_idx <= self._last_idx_sampled:
            raise ValueError(
                f"Sampling index {sampling_idx} must be greater than last sampled index {self._last_idx_sampled}. "
                "Are you decrementing instead?"
            )
        self._last_idx_sampled = sampling_idx
        last = self._reached_terminal_sample = sampling_idx == self.time_steps - 1
        if sampling_idx not in self.resampling_interval or (self.potential_type in _LAST_ONLY and not last):
            return latents, None
        if len(latents) != self.prompts * self.num_particles:
            raise ValueError(
                f"latents: expected {self.prompts * self.num_particles} (prompts {self.prompts} × num_particles "
                f"{self.num_particles}), got {len(latents)}"
            )
        rewards, samples = self.compute_reward(x0_preds)
        if rewards.numel() != self.prompts * self.num_particles:
            raise ValueError(f"reward_fn: expected one reward a particle, {len(latents)}, got {list(rewards.shape)}")
        rewards = rewards.reshape(self._shape)
        if self.potential_type == PotentialType.BON:
            # Highest first, as a beam would keep them; nothing is drawn.
            ancestors = rewards.argsort(dim=1, descending=True, stable=True)
            self._population = rewards.gather(1, ancestors)
        else:
            ancestors = self._as_they_do(rewards, last) if self.compat else self._select(rewards, last)
        return _take(latents, ancestors), _take(samples, ancestors)

    def _select(self, rewards: Tensor, last: bool) -> Tensor:
        s, values = self._steering, self.lmbda * rewards.double()
        s.seeds = resolve_seeds(torch_seed(), self.prompts, self.device)
        if last:
            s.finish(values)
        elif self.potential_type == PotentialType.RT:
            s.weigh(s.state.values + values)
        else:
            s.weigh(values)
        ancestors = s.select()
        self._log_weights = s.log_weights
        empty = (s.state.ess == 0).nonzero().flatten().tolist()
        if empty:
            raise DegenerateWeights(
                f"reward_fn: no particle of prompt {', '.join(map(str, empty))} has a weight above zero at sampling_idx "
                f"{self._last_idx_sampled}; look at its rewards, or raise num_particles",
                tuple(empty),
            )
        if last:
            ancestors = self._equalize(s)
        self._population = rewards.gather(1, ancestors)
        return ancestors

    def _equalize(self, s: Steering) -> Tensor:
        """Draw samples of equal weight at the end, where that is wanted."""
        drawn = ops.select(s.log_weights, rule=self._rule, order="slots", seed=s.seeds, step=s.state.step)
        enough = drawn.ess >= _OWN_THRESHOLD * self.num_particles
        keep = (enough if self.adaptive_resample_at_end else torch.zeros_like(enough))[:, None]
        self._log_weights = torch.where(keep, s.log_weights, s.log_normalizer[:, None])
        return torch.where(keep, torch.arange(self.num_particles, device=self.device), drawn.ancestors.to(torch.int64))

    def _as_they_do(self, rewards: Tensor, last: bool) -> Tensor:
        """Weigh by FK steering's own formulas, in the dtype of the rewards."""
        kind, before = self.potential_type, self._population.to(rewards.dtype)
        if kind == PotentialType.MAX:
            rewards = torch.maximum(rewards, before)
        elif kind == PotentialType.ADD:
            rewards = rewards + before
        w = torch.exp(self.lmbda * (rewards - before if kind == PotentialType.DIFF else rewards))
        if last and kind in (PotentialType.MAX, PotentialType.ADD, PotentialType.RT):
            w = w / self._product
        w = torch.nan_to_num(w.clamp(0, 1e10), nan=0.0)
        w = torch.where(w.sum(1, keepdim=True) == 0, 1.0, w)
        drawn = ops.select(w.double().log(), rule="multinomial", seed=torch_seed())
        adaptive = self.adaptive_resampling or (last and self.adaptive_resample_at_end)
        keep = (drawn.ess >= (_OWN_THRESHOLD * self.num_particles if adaptive else math.inf))[:, None]
        ancestors = drawn.ancestors.to(torch.int64)
        product = (self._product * w).gather(1, ancestors)
        ancestors = torch.where(keep, torch.arange(self.num_particles, device=self.device), ancestors)
        self._product = torch.where(keep, self._product, product)
        self._population = rewards.gather(1, ancestors)
        return ancestors


def _refuse(unknown: set[str]) -> None:
    if unknown:
        name = min(unknown)
        near = difflib.get_close_matches(name, list(FKD.__init__.__annotations__), n=1)
        raise TypeError(f"FKD: unknown option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))


def _take(rows: Any, ancestors: Tensor) -> Any:
    """Return the rows of ancestors ``[G, N]``, of the type they came in; the very same object where all stay."""
    n = ancestors.shape[1]
    if bool((ancestors == torch.arange(n, device=ancestors.device)).all()):
        return rows
    if isinstance(rows, Tensor) and not rows.requires_grad:
        return ops.move(rows, ancestors.to(rows.device))
    index = (ancestors + n * torch.arange(len(ancestors), device=ancestors.device)[:, None]).reshape(-1)
    if isinstance(rows, Tensor):
        return rows[index.to(rows.device)]
    return rows[index.cpu().numpy()] if isinstance(rows, np.ndarray) else [rows[i] for i in index.tolist()]
