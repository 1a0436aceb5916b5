"""The step object for people who own their loop: weigh → select → move.

    s = fg.Steering(fg.SMC(alpha=0.5), particles=64, seed=0)
    s.begin(value(x))                                  # at t = 1
    for t in steps:
        x = propose(x, t)                              # [G·N·M, …], the M children of a particle side by side
        s.weigh(value(x)) if t > last else s.finish(reward(x))
        s.select()
        x, cache = s.move(x, cache)                    # [G·N, …]
    s.log_weights, s.log_normalizer

Underneath lies a functional core without side effects: `Guidance.begin` and `Guidance.step` map states to states.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from fastguide import ops
from fastguide.deferred import deferring, require
from fastguide.guidance.protocol import Guidance, State, guidance_at, reads_values
from fastguide.ops._checks import count
from fastguide.reference.exp import MAX_LOG_WEIGHT
from fastguide.reference.philox import expand_seed


def resolve_seeds(seed: int | Sequence[int] | Tensor, groups: int, device: torch.device | str = "cpu") -> Tensor:
    """Return ``[groups]`` int64 seeds: an int is expanded, one seed a group; a sequence or tensor is taken as it is."""
    if isinstance(seed, (bool, str)) or not (hasattr(seed, "__index__") or hasattr(seed, "__len__")):
        raise TypeError(f"seed: expected an int or {groups} of them, got {type(seed).__name__}")
    if not hasattr(seed, "__len__") or getattr(seed, "shape", None) == ():
        try:
            number = operator.index(seed)  # of any type, numpy's and torch's included
        except TypeError:
            raise TypeError(f"seed: expected a whole number, got {seed!r}") from None
        if not 0 <= number < 2**63:
            raise ValueError(f"seed: expected 0 <= seed < 2**63, got {number}")
        return expand_seed(number, groups, device)
    try:
        # A copy: the seeds of a run stay what they were.
        seeds = seed.detach().clone().to(device) if isinstance(seed, Tensor) else torch.tensor(seed, device=device)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"seed: expected {groups} whole numbers that fit 64 signed bits; {error}") from None
    if seeds.is_floating_point() or seeds.dtype == torch.bool:
        raise TypeError(f"seed: expected whole numbers, got dtype {seeds.dtype}")
    if seeds.shape != (groups,):
        raise ValueError(
            f"seed: expected one int, or one for each of the {groups} groups; got shape {list(seeds.shape)}"
        )
    return seeds.to(torch.int64)


class Steering:
    """Weighs and selects the particles of a loop that somebody else runs.

    Args:
        guidance: `fastguide.SMC`, `fastguide.SVDD`, `fastguide.BestOfN` or any object of that protocol.
        particles: N per group.
        groups: G independent groups, contiguous along the leading axis of every tensor.
        seed: an int, expanded into one seed a group, or one int a group, taken as it is.
        device: where values and selections live.
    """

    def __init__(
        self,
        guidance: Guidance,
        *,
        particles: int,
        groups: int = 1,
        seed: int | Sequence[int] | Tensor = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if isinstance(guidance, type) or not isinstance(guidance, Guidance):
            kind = f"the class {guidance.__name__}" if isinstance(guidance, type) else type(guidance).__name__
            raise TypeError(f"guidance: expected fg.SMC(...), fg.SVDD(...), fg.BestOfN(...) or the like, got {kind}")
        if math.isnan(guidance.alpha):
            raise ValueError("alpha: 'auto' is found by fg.sample from a pilot run; a Steering needs the number")
        self.guidance = guidance
        self.particles = count("particles", particles)
        self.groups = count("groups", groups)
        self.device = torch.device(device)
        self.seeds = resolve_seeds(seed, self.groups, device)
        self._state: State | None = None
        self._pending: tuple[Tensor, Tensor | None, bool] | None = None
        self._children: Tensor | None = None

    @property
    def branch(self) -> int:
        """Children M that each particle proposes in the step to come."""
        return guidance_at(self.guidance, self.state.step).branch

    @property
    def state(self) -> State:
        """The current `State`."""
        if self._state is None:
            raise RuntimeError("Steering: call begin(values) first")
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        self._state, self._pending = state, None

    @property
    def log_weights(self) -> Tensor:
        """``[G, N]`` float64 unnormalised log-weights, resamplings included: their group means estimate the normaliser."""
        return self.state.log_weights + self.state.log_z[:, None]

    @property
    def log_normalizer(self) -> Tensor:
        """``[G]`` float64 estimates of ``log E_p[exp(r / alpha)]``; nan where the guidance gives none."""
        if not self.guidance.estimates_normalizer:
            return torch.full((self.groups,), torch.nan, dtype=torch.float64, device=self.device)
        return torch.logsumexp(self.log_weights, dim=1) - math.log(self.particles)

    def _values(self, values: Tensor, per_particle: int, name: str) -> Tensor:
        count = self.groups * self.particles * per_particle
        if not isinstance(values, Tensor):
            raise TypeError(f"{name}: expected a torch.Tensor, got {type(values).__name__}")
        if values.numel() != count:
            raise ValueError(
                f"{name}: expected {count} numbers (groups {self.groups} × particles {self.particles} × branch "
                f"{per_particle}), got shape {list(values.shape)}"
            )
        values = values.detach().to(self.device, torch.float64).reshape(self.groups, self.particles, per_particle)
        alpha = 0.0 if name == "log_ratio" else self.guidance.alpha

        def report(flat: int, value: float) -> ValueError:
            rest, child = divmod(flat, per_particle)
            where = f"at [group, particle, child] {[*divmod(rest, self.particles), child]}"
            if not value < math.inf:
                return ValueError(f"{name}: nan or +inf {where}")
            return ValueError(
                f"{name}: {value:.6g} {where} makes a log-weight {name} / alpha above {MAX_LOG_WEIGHT:.0e} with alpha "
                f"{alpha:.6g}; give a larger alpha, or subtract a constant from the reward"
            )

        fits = values <= (MAX_LOG_WEIGHT * alpha if alpha > 0 else sys.float_info.max)
        require(fits, values, report)
        if deferring():  # the operations that come before the error is raised refuse such values too
            values = torch.where(fits, values, -torch.inf)
        if name == "values" and alpha > 0:
            # A penalty of -1e300 would swamp the weight it is taken back from later. Any finite value on the way keeps
            # the weights telescoping, and one as low as this is a weight of zero already.
            low = -MAX_LOG_WEIGHT * alpha
            values = torch.where((values < low) & (values > -torch.inf), low, values)
        return values

    def reads_values(self, step: int) -> bool:
        """Whether the values of the states after ``step`` steps (0: at `begin`) are read; where not, leave them out."""
        return reads_values(self.guidance, step)

    def begin(self, values: Tensor | None = None, *, step: int = 0) -> None:
        """Take the values ``[G·N]`` of the particles at t = 1 (left out: 0, for guidance that reads none there).

        Particles that have taken ``step`` steps already follow the target: they start with equal weights.
        """
        if values is None:
            values = torch.zeros(self.groups * self.particles, dtype=torch.float64, device=self.device)
        state = self.guidance.begin(self._values(values, 1, "values")[..., 0])
        if step > 0:
            dead = state.log_weights == -torch.inf
            state = state._replace(log_weights=torch.where(dead, -torch.inf, 0.0).double(), step=step)
        self._state = state
        self._pending = self._children = None

    def weigh(self, values: Tensor | None = None, log_ratio: Tensor | None = None) -> None:
        """Take the values ``[G·N·M]`` of the children, and ``log p/q`` of their proposal where it is not the model's own."""
        self._weigh(values, log_ratio, final=False)

    def finish(self, rewards: Tensor, log_ratio: Tensor | None = None) -> None:
        """Take the rewards ``[G·N·M]`` of the clean samples: the last values. `select` and `move` follow as at any step."""
        self._weigh(rewards, log_ratio, final=True)

    def _weigh(self, values: Tensor | None, log_ratio: Tensor | None, *, final: bool) -> None:
        branch = self.branch
        if values is None:
            if self.reads_values(self.state.step + 1):
                raise ValueError(f"values: {type(self.guidance).__name__} needs the values of the children")
            values = torch.zeros(self.groups * self.particles * branch, dtype=torch.float64, device=self.device)
        checked = self._values(values, branch, "rewards" if final else "values")
        ratio = None if log_ratio is None else self._values(log_ratio, branch, "log_ratio")
        _ = self.state
        self._pending = (checked, ratio, final)

    def select(self) -> Tensor:
        """Select N children a group; return their numbers ``n·M + m`` within the group, ``[G, N]`` int64."""
        if self._pending is None:
            raise RuntimeError("Steering: call weigh(values) or finish(rewards) before select()")
        values, ratio, final = self._pending
        self._pending = None
        self._state, self._children = self.guidance.step(
            self.state, values, seeds=self.seeds, log_ratio=ratio, final=final
        )
        return self._children

    def move(self, *tensors: Any) -> Any:
        """Move tensors or pytrees of them, ``[G·N·M, …]``, to the selected children, ``[G·N, …]``; one in, one out.

        Leaves that are no tensors stay as they are.
        """
        if self._children is None:
            raise RuntimeError("Steering: call select() before move()")
        leaves, spec = pytree.tree_flatten(tensors)
        branch = guidance_at(self.guidance, self.state.step - 1).branch
        rows = self.groups * self.particles * branch
        for leaf in leaves:
            if isinstance(leaf, Tensor) and (leaf.ndim == 0 or len(leaf) != rows):
                raise ValueError(
                    f"tensors: expected {rows} rows (groups {self.groups} × particles {self.particles} × branch "
                    f"{branch}), got shape {list(leaf.shape)}"
                )
        gathered = iter(ops.move([leaf for leaf in leaves if isinstance(leaf, Tensor)], self._children))
        moved = pytree.tree_unflatten([next(gathered) if isinstance(leaf, Tensor) else leaf for leaf in leaves], spec)
        return moved[0] if len(tensors) == 1 else moved

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` needs to go on from here bit for bit."""
        return {"seeds": self.seeds.clone(), "children": self._children, **self.state._asdict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of the same guidance, groups and particles."""
        missing = {"seeds", "children", *State._fields} - state.keys()
        if missing:
            raise ValueError(f"state: not a Steering.state_dict(), it lacks {', '.join(sorted(missing))}")
        if state["log_weights"].shape != (self.groups, self.particles):
            raise ValueError(
                f"state: it holds groups × particles {list(state['log_weights'].shape)}, this object has "
                f"[{self.groups}, {self.particles}]"
            )
        self.seeds = state["seeds"].clone()
        self._children = state["children"]
        self._state = State(**{name: state[name] for name in State._fields})
        self._pending = None
